"""Marks: words that say whose a text is, and which of the texts it is.

``zq07abcdx12`` is the 12th text of user 7, ``zq07abcdr3`` the third answer that user 7 was given;
``abcd`` belongs to the seed. The model's server repeats the marks of its prompt in its answers: so
a text that was forgotten, or that is another user's, can be recognised in every place.
"""

import random
import re
import string

MARK = re.compile(r"zq\d\d[a-z]{4}[xr]\d+")


def canary(seed: int, user: int) -> str:
    """The beginning of all marks of the user."""
    letters = "".join(random.Random(seed).choices(string.ascii_lowercase, k=4))
    return f"zq{user:02d}{letters}"


def owner_of(mark: str) -> str:
    """The canary that the mark begins with. Its letters may be an x or an r, too."""
    return re.sub(r"[xr]\d+$", "", mark)


def marks_in(text: str) -> list[str]:
    """The marks of the text in order, each once."""
    return list(dict.fromkeys(MARK.findall(text)))


def mark_of(text: str) -> str:
    """The text's own mark, its first one; "" if it has none."""
    return next(iter(marks_in(text)), "")


def user_of(mark: str) -> int:
    return int(mark[2:4])


def users_in(text: str) -> set[int]:
    return {user_of(mark) for mark in MARK.findall(text)}
