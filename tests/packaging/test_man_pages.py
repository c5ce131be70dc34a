"""The man pages name every command, flag and key of the programs, and no other."""

import argparse
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamactl.command_line import parser as llamactl_parser
from llamad.__main__ import _parser as llamad_parser
from llamad.config import SECTIONS, rules

ROOT = Path(__file__).resolve().parents[2]
MAN = ROOT / "packaging" / "man"
PAGES = sorted(path.name for path in MAN.iterdir())
DEFAULT_FILE = ROOT / "packaging" / "etc" / "llamad.toml"


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    actions = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(actions[0].choices)


def _flags(parser: argparse.ArgumentParser) -> set[str]:
    return {name for action in parser._actions for name in action.option_strings}


def _lines(page: str) -> list[str]:
    return (MAN / page).read_text(encoding="utf-8").splitlines()


def _named_flags(lines: list[str]) -> set[str]:
    """Return the flags of mdoc(7) lines: `Fl x` is -x, `Fl Fl word` is --word."""
    return {
        ("--" if match[1] else "-") + match[2]
        for line in lines
        if line.startswith(".")
        for match in re.finditer(r"\bFl (Fl )?([\w-]+)(?<!Fl)", line)
    }


def _sections(page: str, macro: str) -> dict[str, list[str]]:
    """Return the lines under every heading of a kind."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in _lines(page):
        if line.startswith((".Sh ", ".Ss ")):
            lines = []
            if line.startswith(f".{macro} "):
                sections[line.split(" ", 1)[1]] = lines
        lines.append(line)
    return sections


def test_every_flag_of_llamad_stands_under_its_command() -> None:
    sections = _sections("llamad.8", "Ss")
    shared = _named_flags(sections.pop("Every command"))
    parser = llamad_parser("")
    described = {title.split()[-1]: _named_flags(lines) for title, lines in sections.items()}
    assert described == {
        name: _flags(command) - shared for name, command in _commands(parser).items()
    }
    assert shared == _flags(parser)


def test_the_synopsis_of_llamad_has_every_command() -> None:
    synopsis = _sections("llamad.8", "Sh")["SYNOPSIS"]
    named = [line.split()[1] for line in synopsis if line.startswith(".Cm ")]
    assert named == list(_commands(llamad_parser("")))


def test_every_flag_of_llamactl_is_described() -> None:
    parser = llamactl_parser()
    flags = _flags(parser).union(*(_flags(c) for c in _commands(parser).values()))
    assert _named_flags(_lines("llamactl.1")) == flags


def test_every_command_of_llamactl_is_described_once() -> None:
    lines = _sections("llamactl.1", "Sh")["COMMANDS"]
    named = [line.split()[2] for line in lines if line.startswith(".It Cm ")]
    assert named == list(_commands(llamactl_parser()))


def test_every_key_stands_under_its_section_as_in_the_default_file() -> None:
    shown: dict[str, list[str]] = {}
    for title, lines in _sections("llamad.toml.5", "Ss").items():
        items = [line.removeprefix(".It Sy ") for line in lines if line.startswith(".It Sy ")]
        shown[title.strip("[]")] = [i.replace(" No =", " =").replace("\\(dq", '"') for i in items]
    defaults: dict[str, list[str]] = {}
    for line in DEFAULT_FILE.read_text(encoding="utf-8").splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            keys = defaults.setdefault(header[1], [])
        elif key := re.fullmatch(r"#(\w+ = .*)", line):
            keys.append(key[1])
    assert shown == defaults
    assert {s: [i.split()[0] for i in items] for s, items in shown.items()} == {
        s: list(rules(s)) for s in SECTIONS
    }


@pytest.mark.parametrize("section", SECTIONS)
def test_what_a_key_allows_is_what_the_schema_allows(section: str) -> None:
    lines = _sections("llamad.toml.5", "Ss")[f"[{section}]"]
    allowed = dict(_allowed(lines))
    assert allowed, section
    for key, text in allowed.items():
        assert text == str(rules(section)[key]), key


def _allowed(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each key with what its line "Allowed: ..." says."""
    key = ""
    for line in lines:
        if line.startswith(".It Sy "):
            key = line.split()[2]
        elif line.startswith("Allowed: "):
            yield key, line.removeprefix("Allowed: ").removesuffix(".")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_renders_without_a_warning(page: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    command = ["groff", "-mandoc", "-Tutf8", "-ww", "-K", "utf8", str(MAN / page)]
    rendered = subprocess.run(command, capture_output=True, text=True)
    assert (rendered.returncode, rendered.stderr) == (0, "")
