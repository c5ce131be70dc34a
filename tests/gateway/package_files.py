"""What the package of a gateway ships, read for the tests that compare it with the program."""

import argparse
import re

from project_files import ROOT

PACKAGING = ROOT / "packaging"


def with_every_key(name: str) -> str:
    """Return a file of packaging/etc in which no key is commented out."""
    text = (PACKAGING / "etc" / name).read_text(encoding="utf-8")
    return re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE)


def unit(name: str) -> dict[str, list[str]]:
    """Return the settings of a unit of systemd."""
    settings: dict[str, list[str]] = {}
    for line in (PACKAGING / "systemd" / name).read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"(\w+)=(.*)", line):
            settings.setdefault(match[1], []).append(match[2])
    return settings


def flags_on_page(page: str) -> set[str]:
    """Return the flags that a man page names."""
    found = re.findall(r"\bFl (Fl )?([\w-]+)", page)
    return {("--" if double else "-") + word for double, word in found if word != "Fl"}


def flags_of(top: argparse.ArgumentParser) -> set[str]:
    """Return the flags of a command line, with those of its commands."""
    flags: set[str] = set()
    for action in top._actions:
        flags.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            flags.update(*(flags_of(command) for command in action.choices.values()))
    return flags
