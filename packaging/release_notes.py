"""Print the notes of a release: what CHANGELOG.md says of the version, when everything names it.

    python3 packaging/release_notes.py vX.Y.Z

The tag must be that of the version in pyproject.toml and in packaging/debian/changelog, and
CHANGELOG.md must have a section of it with a date. Otherwise the exit code is 1, with the reason.
Needs nothing but Python.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class NotReadyError(Exception):
    """The tree is not that of a release of this tag; the message says what differs."""


def notes(root: Path, tag: str) -> str:
    """Return the section of a tag's version, without its title, or raise NotReadyError."""
    version = tag.removeprefix("v")
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    if tag != f"v{project}":
        raise NotReadyError(f"the tag is {tag}, the version in pyproject.toml is {project}")
    debian = (root / "packaging/debian/changelog").read_text().partition("\n")[0]
    if not debian.startswith(f"llamad ({version}) "):
        raise NotReadyError(
            f"packaging/debian/changelog begins with {debian!r}, not with {version}"
        )
    sections = re.split(r"^## (.*)\n", (root / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    for title, text in zip(sections[1::2], sections[2::2], strict=True):
        if re.fullmatch(rf"{re.escape(version)}, \d{{4}}-\d{{2}}-\d{{2}}", title):
            if not text.strip():
                raise NotReadyError(f"CHANGELOG.md says nothing of {version}")
            return text.strip() + "\n"
    raise NotReadyError(f"CHANGELOG.md has no section {version + ', YYYY-MM-DD'!r}")


def main() -> int:
    """Run the command line; return the exit code."""
    if len(sys.argv) != 2:
        print("usage: release_notes.py vX.Y.Z", file=sys.stderr)
        return 2
    try:
        print(notes(ROOT, sys.argv[1]), end="")
    except NotReadyError as error:
        print(f"release_notes.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
