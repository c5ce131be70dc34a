"""The pictures of the pages are what their scripts draw, and need nothing from elsewhere."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from speeds_picture import LEAST, MOST, picture, place

from llamactl.catalogue import read_catalogue
from project_files import ROOT

PICTURES = sorted((ROOT / "docs" / "pictures").glob("*.svg"))


def test_the_picture_of_the_speeds_is_that_of_the_catalogue() -> None:
    assert (ROOT / "docs/pictures/speeds.svg").read_text() == picture(), (
        "make picture, or .venv/bin/python packaging/speeds_picture.py docs/pictures/speeds.svg"
    )


def test_every_speed_is_on_the_axis() -> None:
    catalogue = read_catalogue()
    speeds = [e.tokens_per_second(b) for e in catalogue.entries for b in catalogue.boards.values()]
    assert min(speeds) > LEAST
    assert max(speeds) < MOST
    assert [place(speed) for speed in sorted(speeds)] == sorted(place(speed) for speed in speeds)


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_picture_says_what_it_shows_and_fetches_nothing(path: Path) -> None:
    root = ElementTree.parse(path).getroot()
    assert root.find("{http://www.w3.org/2000/svg}title") is not None
    assert re.findall(r"(?:href|src)=|url\((?!#)|@import", path.read_text()) == []
