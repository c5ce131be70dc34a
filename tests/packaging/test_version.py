"""The version stands in four places, and they agree."""

import re
import tomllib
from pathlib import Path

import llamad
import llamad_client

ROOT = Path(__file__).resolve().parents[2]


def test_there_is_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    changelog = (ROOT / "packaging/debian/changelog").read_text()
    debian = re.match(r"llamad \(([^)]+)\)", changelog)
    assert debian is not None
    assert {llamad.__version__, llamad_client.__version__, debian[1]} == {project}
