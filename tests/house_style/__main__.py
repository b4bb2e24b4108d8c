"""Prints each place that breaks a rule, then a count for each rule."""

import sys
from collections import Counter

from tests.house_style import broken_rules


def main(folders: list[str]) -> int:
    """Print the places inside the folders, or all. Returns the exit code."""
    starts = tuple(folder.rstrip("/") for folder in folders)
    places = [place for place in broken_rules() if not starts or place.file.startswith(starts)]
    for place in places:
        print(f"{place.file}:{place.line}: {place.rule}")  # noqa: T201 # a command
    print(dict(Counter(place.rule for place in places)))  # noqa: T201 # a command
    return 1 if places else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
