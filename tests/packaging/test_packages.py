"""The list of packages that setuptools installs: every folder with Python modules, and no other."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_package_is_installed() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    there = {
        ".".join((name, *init.parent.relative_to(ROOT / folder).parts))
        for name, folder in setup["package-dir"].items()
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert set(setup["packages"]) == there
