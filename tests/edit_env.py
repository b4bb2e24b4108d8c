"""Do what a page tells the reader's editor: python edit_env.py SETTINGS .env

Replace the line of each setting, or append one at the end. A missing last newline is added.
"""

import sys
from pathlib import Path


def edit(content: str, settings: str) -> str:
    """The file's content with these lines of NAME=value."""
    lines = content.splitlines()
    for setting in filter(None, settings.splitlines()):
        name = setting.partition("=")[0] + "="
        places = [number for number, line in enumerate(lines) if line.startswith(name)]
        if not places:
            lines.append(setting)
        for number in places:
            lines[number] = setting
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    new, file = Path(sys.argv[1]), Path(sys.argv[2])
    file.write_text(edit(file.read_text(), new.read_text()))
