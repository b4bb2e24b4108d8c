"""Builds the documentation site into build/docs: ``make docs``.

    python docs/site/build.py [TARGET]

Runs in an environment of its own (requirements.lock here), without Verse. Exits 1 for a link to a
page or heading that does not exist, and for anything that a page would load from another server.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

SITE = Path(__file__).resolve().parent
DOCS = SITE.parent
ROOT = DOCS.parent
# Each page once, in the order of the menu; "*" stands for all of a folder.
SECTIONS = {
    "Begin": [
        "tutorial",
        "pages",
        "how-memory-works",
        "architecture",
        "bring-your-history",
        "changelog",
    ],
    "Operate": [
        "operations",
        "deployment",
        "each-step",
        "commands",
        "settings",
        "doctor",
        "observability",
        "logs",
        "containers",
        "roles",
        "embedding-model",
        "model-servers",
        "security",
    ],
    "How to": ["howto/*"],
    "Develop": [
        "developers",
        "api",
        "api/*",
        "openai-api",
        "clients/*",
        "mcp",
        "promises",
        "tables",
        "migration-locks",
        "contributing",
        "benchmarks",
        "evaluation",
    ],
    "Decisions": ["decisions/*"],
}
REST = "More"  # the section of pages that are in none of these
LOADED = re.compile(
    r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=\"((?:https?:)?//[^\"]+)"
)
IN_STYLE = re.compile(r"(?:url\(|@import\s)[\"']?((?:https?:)?//[^\"')]+)")


def pages() -> dict[str, list[str]]:
    """The pages of each section, without their ending."""
    sections = {
        title: [name for entry in entries for name in _expanded(entry)]
        for title, entries in SECTIONS.items()
    }
    listed = {name for names in sections.values() for name in names}
    rest = sorted(str(path.relative_to(DOCS))[:-3] for path in DOCS.rglob("*.md"))
    return sections | {REST: [name for name in rest if name not in listed]}


def _expanded(entry: str) -> list[str]:
    if not entry.endswith("/*"):
        return [entry]
    return sorted(str(path.relative_to(DOCS))[:-3] for path in DOCS.glob(f"{entry}.md"))


def write_sources(folder: Path) -> None:
    """The docs as Sphinx reads them: README is the first page, the changelog is one of them."""
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns("site"), dirs_exist_ok=True)
    shutil.copy(ROOT / "LICENSE", folder)
    for page in folder.rglob("*.md"):
        top = "../" * (len(page.relative_to(folder).parents) - 1)
        text = page.read_text().replace(f"]({top}../CHANGELOG.md", f"]({top}changelog.md")
        page.write_text(text.replace(f"]({top}../README.md", f"]({top}index.md"))
    (folder / "changelog.md").write_text((ROOT / "CHANGELOG.md").read_text())
    first = (ROOT / "README.md").read_text().replace("](docs/", "](")
    menus = "".join(_menu(title, names) for title, names in pages().items() if names)
    (folder / "index.md").write_text(first.replace("](CHANGELOG.md", "](changelog.md") + menus)


def _menu(title: str, names: list[str]) -> str:
    listed = "\n".join(names)
    return f"\n```{{toctree}}\n:caption: {title}\n:hidden:\n\n{listed}\n```\n"


def loads_from_others(target: Path) -> Iterator[str]:
    """Each address of another server that a built page or style would load, after its file."""
    for pattern, kinds in ((LOADED, ("*.html",)), (IN_STYLE, ("*.css", "*.html"))):
        for path in (path for kind in kinds for path in target.rglob(kind)):
            for address in pattern.findall(path.read_text()):
                yield f"{path.relative_to(target)}: {address}"


def main() -> int:
    from sphinx.cmd.build import build_main  # type: ignore[import-not-found]

    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "docs"
    with tempfile.TemporaryDirectory() as folder:
        write_sources(Path(folder))
        strict = ["--quiet", "--fail-on-warning", "--keep-going", "--fresh-env", "--write-all"]
        failed = build_main([*strict, "-c", str(SITE), folder, str(target)])
    for place in loads_from_others(target):
        print(f"Loaded from another server: {place}", file=sys.stderr)
        failed = 1
    if not failed:
        print(f"Built: {target / 'index.html'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
