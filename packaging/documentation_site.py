"""Build the documentation site from the pages of the repository, and check it.

    build/site-venv/bin/python packaging/documentation_site.py API.md OUT

The pages stay where they are: they are copied, with the files that they link to, into a tree of the
same shape, and mkdocs makes HTML of it. Sections and order are those of the tables of
docs/README.md, which lists every page; API.md becomes docs/api.md. Fails on a warning of mkdocs,
and where a page of the result links to nothing, shows Markdown as it is written, or fetches
something from elsewhere.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "build" / "site-source"
CONFIGURATION = ROOT / "build" / "mkdocs.yml"
INDEX = "docs/README.md"
API = "docs/api.md"
HOME = "README.md"
MARKDOWN = r"```|\]\([\w./#]+\)|^\s*[-*] \w.*|^\|.*"  # fences, links, lists, tables


def links(root: Path, page: str) -> Iterator[str]:
    """Yield the files that a page links to, by their paths from the root."""
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", (root / page).read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            yield str(((root / page).parent / target).resolve().relative_to(root))


def sections(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield title and pages of each section of the index, in the order of its tables."""
    text = (root / INDEX).read_text(encoding="utf-8")
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    for title, part in zip(parts[1::2], parts[2::2], strict=True):
        pages = re.findall(r"\]\(([\w./-]+\.md)\)", part)
        yield title, [str((root / "docs" / page).resolve().relative_to(root)) for page in pages]


def stage(root: Path, api: Path, source: Path) -> None:
    """Copy the pages and all that they link to, and that in turn, below ``source``."""
    shutil.rmtree(source, ignore_errors=True)
    waiting, copied = [HOME, INDEX], set()
    while waiting:
        path = waiting.pop()
        if path in copied or path == API:
            continue
        copied.add(path)
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, source / path)
        if path.endswith(".md"):
            waiting += links(root, path)
    shutil.copyfile(api, source / API)


def build(root: Path, output: Path) -> None:
    """Let mkdocs make the site; CalledProcessError when it warns of something."""
    navigation = [{"llamad": HOME}, *({title: pages} for title, pages in sections(root))]
    navigation.append({"API reference": API})
    settings = {
        "INHERIT": str(root / "packaging" / "mkdocs.yml"),
        "docs_dir": str(SOURCE),
        "site_dir": str(output.resolve()),
        "nav": navigation,
    }
    CONFIGURATION.write_text(json.dumps(settings, indent=1))  # JSON is YAML
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--clean"]
    subprocess.run([*command, f"--config-file={CONFIGURATION}"], check=True)


class Page(HTMLParser):
    """What a page of the site links to, what it can be linked to by, and its text outside code."""

    def __init__(self, text: str) -> None:
        """Parse the whole page."""
        super().__init__()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.names: set[str] = set()
        self.prose: list[str] = []
        self._code = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Take an element's link, source and id."""
        values = {name: value for name, value in attributes if value is not None}
        self._code += tag in ("code", "pre", "script", "style")
        self.names |= {values[name] for name in ("id", "name") if name in values}
        (self.targets if tag == "a" else self.loaded).extend(
            values[name] for name in ("href", "src") if name in values
        )

    def handle_endtag(self, tag: str) -> None:
        """Leave code, or a paragraph."""
        if tag == "p":
            self.prose.append("\n")
        self._code -= tag in ("code", "pre", "script", "style")

    def handle_data(self, data: str) -> None:
        """Take text that is no code."""
        if not self._code:
            self.prose.append(data)


def faults(site: Path) -> Iterator[str]:
    """Yield what is wrong in a built site, a line each."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        where = path.relative_to(site)
        if where.name == "404.html":  # its links are absolute, of a server's root
            continue
        for target in (*page.targets, *page.loaded):
            if re.match(r"[a-z]+:|//", target):
                if target in page.loaded and not target.startswith("data:"):
                    yield f"{where}: fetches {target}"
                continue
            file, _, name = target.partition("#")
            linked = (path.parent / file).resolve() if file else path
            if not linked.exists():
                yield f"{where}: links to {target}, which is not there"
            elif name and linked in pages and name not in pages[linked].names:
                yield f"{where}: links to {target}, which has no such heading"
        for written in re.findall(MARKDOWN, "".join(page.prose), re.MULTILINE):
            yield f"{where}: shows {written.strip()[:60]!r} as it is written"


def main() -> int:
    """Run the command line; return the exit code."""
    api, output = map(Path, sys.argv[1:])
    stage(ROOT, api, SOURCE)
    build(ROOT, output)
    found = list(faults(output.resolve()))
    print("\n".join(found), file=sys.stderr)
    count = len(list(output.rglob("*.html")))
    print(f"{output}: {count} pages, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
