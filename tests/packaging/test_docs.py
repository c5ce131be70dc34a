"""The pages for people (*.md): their links, the files they name and the make targets exist.

A file is named by its path from the root, from the page's own folder or from one of ROOTS; a word
in capitals stands for any name (`clients/llamactl/commands/NAME.py`).
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from project_files import ROOT, is_ignored, project_files

ROOTS = ("", "daemon", "daemon/llamad", "native", "native/src", "clients", "protos", "packaging")
SOURCE_SUFFIXES = (".py", ".c", ".h", ".md", ".proto")
PAGES = sorted(str(path) for path in project_files() if path.suffix == ".md")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def code_blocks(page: str) -> list[str]:
    """Return the fenced blocks of a page."""
    return re.findall(r"^ *```\w*\n(.*?)^ *```", text_of(page), re.MULTILINE | re.DOTALL)


def code_spans(page: str) -> list[str]:
    """Return what stands between backticks outside of blocks, each on one line."""
    prose = re.sub(r"^ *```.*?^ *```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


@cache
def known_paths() -> frozenset[str]:
    """Return every tracked file and every folder that holds one."""
    files = project_files()
    return frozenset(str(p) for file in files for p in (file, *file.parents))


def expanded(path: str) -> Iterator[str]:
    """Yield the paths of `a/{b,c}.h`."""
    match = re.search(r"\{([^{}]*)\}", path)
    if match is None:
        yield path
        return
    for word in match[1].split(","):
        yield from expanded(path[: match.start()] + word + path[match.end() :])


def is_there(page: str, path: str) -> bool:
    """Whether the path exists below the root, the page's folder or one of ROOTS."""
    pattern = re.escape(path.rstrip("/")).replace(r"\*", "[^/]*")
    pattern = re.sub(r"(?<![a-z])[A-Z]{4,}(?![a-z])", "[^/]+", pattern)
    folders = [str(Path(page).parent), *ROOTS]
    prefixes = {"" if folder in ("", ".") else f"{folder}/" for folder in folders}
    candidates = known_paths()
    return path in candidates or any(
        re.fullmatch(re.escape(prefix) + pattern, known)
        for prefix in prefixes
        for known in candidates
    )


def named_paths(page: str) -> set[str]:
    """Return the words of a page that are paths: with a slash, or with a source file's suffix."""
    tops = {path.split("/")[0] for path in known_paths() if "/" in path}
    found = set()
    for span in code_spans(page):
        if re.fullmatch(r"[\w.{},*-]+(?:/[\w.{},*-]+)+/?", span):
            found.add(span)
    for code in (*code_spans(page), *code_blocks(page)):
        for word in re.findall(r"(?<![\w./:~$-])[\w.{},*-]+(?:/[\w.{},*-]+)*/?", code):
            if word.split("/")[0] in tops and "/" in word:
                found.add(word.rstrip(".,"))
    return found


def named_files(page: str) -> set[str]:
    """Return the source files that a page names without a folder."""
    return {s for s in code_spans(page) if re.fullmatch(r"\w+\.\w+", s) and is_source(s)}


def is_source(name: str) -> bool:
    return name.endswith(SOURCE_SUFFIXES)


def targets(makefile: str) -> set[str]:
    """Return the words before the colon of every rule."""
    lines = (ROOT / makefile).read_text(encoding="utf-8").splitlines()
    rules = [re.match(r"([a-z0-9 -]+):(?!=)", line) for line in lines]
    return {word for rule in rules if rule for word in rule[1].split()}


def named_targets(page: str) -> set[tuple[str, str]]:
    """Return (makefile, target) of every make command of a page."""
    found = set()
    for code in (*code_spans(page), *code_blocks(page)):
        commands = re.sub(r"#.*", "", code)
        for match in re.finditer(r"(?<![\w/-])make((?:[ ]+(?:-C|\w[\w=./-]*))*)", commands):
            words = match[1].split()
            makefile = "native/Makefile" if words[:2] == ["-C", "native"] else "Makefile"
            words = words[2:] if makefile != "Makefile" else words
            found |= {(makefile, word) for word in words if "=" not in word}
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (folder / path).resolve() if path else ROOT / page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def anchors(page: Path) -> set[str]:
    """Return the fragments that headings of a page give."""
    titles = re.findall(r"^#+ +(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    missing = [
        path
        for named in named_paths(page)
        for path in expanded(named)
        if not is_there(page, path) and not is_ignored(path)
    ]
    names = {path.rsplit("/", 1)[-1] for path in known_paths()}
    missing += sorted(named_files(page) - names)
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_that_a_page_names_exists(page: str) -> None:
    known = {makefile: targets(makefile) for makefile in ("Makefile", "native/Makefile")}
    assert [pair for pair in sorted(named_targets(page)) if pair[1] not in known[pair[0]]] == []


def test_every_page_of_docs_is_in_its_index() -> None:
    pages = {Path(page).name for page in PAGES if Path(page).parent == Path("docs")}
    if pages:
        linked = re.findall(r"\]\(([\w-]+\.md)\)", text_of("docs/README.md"))
        assert sorted(linked) == sorted(pages - {"README.md"})


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_exists(page: str) -> None:
    named = {span for span in code_spans(page) if re.fullmatch(r"test_\w+", span)}
    tests = [path for path in project_files() if path.name.startswith("test_")]
    known = {
        name
        for path in tests
        if named and path.suffix == ".py"
        for name in re.findall(r"def (test_\w+)", (ROOT / path).read_text(encoding="utf-8"))
    }
    known |= {path.stem for path in tests}
    assert named - known == set()
