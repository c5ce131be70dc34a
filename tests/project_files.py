"""The files of the project: those of the tree that .gitignore does not name.

Owns a reader of the kinds of lines that our .gitignore has. It runs no git: an archive of the
project has none, and root's git refuses a user's clone. As a program it prints the files, each
ended by a NUL, for packaging/build-deb.
"""

import os
import sys
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@cache
def _patterns() -> tuple[str, ...]:
    """Return the lines of .gitignore. Raises ValueError for a kind that is not understood."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    patterns = tuple(line.strip() for line in lines if line.strip() and line[0] != "#")
    for pattern in patterns:
        if pattern[0] in "!\\" or "**" in pattern:
            raise ValueError(f".gitignore: {pattern!r} is of a kind that {__name__} does not read")
    return patterns


def _matches(path: str, is_folder: bool, pattern: str) -> bool:
    if pattern.endswith("/") and not is_folder:
        return False
    body = pattern.rstrip("/")
    if "/" not in body:
        return fnmatchcase(path.rsplit("/", 1)[-1], body)
    parts, wanted = path.split("/"), body.lstrip("/").split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def is_ignored(path: str) -> bool:
    """Whether .gitignore names the path, or a folder that it lies in; it need not exist.

    path: relative to the root; a folder ends in a slash.
    """
    parts = path.rstrip("/").split("/")
    return any(
        _matches("/".join(parts[:n]), n < len(parts) or path.endswith("/"), pattern)
        for n in range(1, len(parts) + 1)
        for pattern in _patterns()
    )


@cache
def project_files() -> tuple[Path, ...]:
    """Return the files of the project, relative to its root, sorted."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        here = Path(folder).relative_to(ROOT)
        folders[:] = [
            name for name in folders if name != ".git" and not is_ignored(f"{here / name}/")
        ]
        found += [here / name for name in names if not is_ignored(str(here / name))]
    return tuple(sorted(path for path in found if path.name != ".git"))


if __name__ == "__main__":
    sys.stdout.write("".join(f"{path}\0" for path in project_files()))
