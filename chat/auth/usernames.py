"""Usernames as people type them: ``é`` is one character, or ``e`` with an accent after it.

Django stores names in the normal form NFKC, in which its own forms, as the admin's, compare them.
"""

from django.contrib.auth.models import User


def normalize(name: str) -> str:
    return User.normalize_username(name)


def find_user(name: str) -> User | None:
    """The user of this name. One that another program has stored in another form has its own."""
    users = {
        user.username: user for user in User.objects.filter(username__in=[name, normalize(name)])
    }
    return users.get(name) or users.get(normalize(name))
