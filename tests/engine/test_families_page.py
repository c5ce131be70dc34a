"""docs/models.md names exactly the families that the engine loads, and refuses none of them."""

import re
from pathlib import Path

import pytest

from engine.family_cells import families_of_the_engine
from project_files import ROOT

PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
REFUSED = PAGE.partition("| refused | because |")[2].partition("\n\n")[0]


def families_of_the_page() -> set[str]:
    row = next(line for line in PAGE.splitlines() if line.startswith("| families |"))
    return set(re.findall(r"`([^`]+)`", row))


@pytest.fixture
def families(tmp_path: Path) -> set[str]:
    return families_of_the_engine(tmp_path)


def test_the_page_names_the_families_of_the_engine(families: set[str]) -> None:
    assert families_of_the_page() == families


def test_the_page_refuses_nothing_that_is_loaded(families: set[str]) -> None:
    first_cells = "".join(line.split("|")[1] for line in REFUSED.strip().splitlines()[1:])
    refused = set(re.findall(r"`([^`]+)`", first_cells))
    assert refused
    assert not refused & families
