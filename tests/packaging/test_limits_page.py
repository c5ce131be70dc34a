"""docs/limits.md: each value is that of the constant or the configuration key named beside it."""

import dataclasses
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llamad import config
from llamad.door import limits
from llamad.door.capacity import MOST_HALVINGS, Capacity, capacity_for

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "limits.md"
UNITS = {"": 1, "s": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "days": 86_400}


def rows() -> list[list[str]]:
    """Return the cells of each row that names a file: what, value, names, files, effect."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if "/" in row[3]]


def numbers(value: str) -> list[float]:
    """Return the numbers of a cell such as ``64 KiB; 0.25 s (1 to 10,000)``, in units of one."""
    found = re.findall(r"(-?\d[\d,]*(?:\.\d+)?)(?: (KiB|MiB|GiB|days|s)\b)?", value)
    return [float(number.replace(",", "")) * UNITS[unit] for number, unit in found]


def spans(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def values_of(name: str, files: list[str]) -> Iterator[float]:
    """Yield the value of a constant, those of a range, or default and range of a key."""
    if "." in name:
        section, key = name.split(".")
        default = getattr(getattr(config.Config(), section), key)
        yield from [] if default is None else [default]
        yield from ends(config.rules(section)[key])
        return
    found = [value for file in files for value in constants(file, name)]
    assert len(found) == 1, f"{name} stands {len(found)} times in {files}"
    yield from found[0]


def constants(file: str, name: str) -> Iterator[list[float]]:
    """Yield the values of a module's constant, or of an enumerator in C."""
    if file.endswith(".py"):
        module = re.sub(r"^(daemon|clients)/", "", file).removesuffix(".py").replace("/", ".")
        value = getattr(importlib.import_module(module), name, None)
        if value is not None:
            yield ends(value) if dataclasses.is_dataclass(value) else [float(value)]
        return
    for expression in re.findall(rf"\b{name} = ([\d <]+)[,}} \n]", (ROOT / file).read_text()):
        number, _, shift = expression.partition("<<")
        yield [float(int(number) << int(shift or "0"))]


def ends(rule: Any) -> list[float]:
    return [float(rule.low), float(rule.high)]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_the_values_of_the_page_are_those_of_the_code(row: list[str]) -> None:
    _, value, names, files, _ = row
    expected = [number for name in spans(names) for number in values_of(name, spans(files))]
    assert numbers(value) == expected


def named() -> set[str]:
    return {name for row in rows() for name in spans(row[2])}


def test_the_page_names_every_limit_of_the_door() -> None:
    constants = {name for name in vars(limits) if name.isupper()} - {"KIB", "MIB"}
    assert constants - named() == set()


def test_the_page_names_every_configured_limit() -> None:
    keys = {
        f"{section}.{key}"
        for section in ("queue", "limits")
        for key, rule in config.rules(section).items()
        if not isinstance(rule, config.Choice)
    }
    assert keys - named() == set()


@pytest.mark.parametrize("halvings", range(MOST_HALVINGS + 1))
def test_the_page_says_what_little_memory_halves(halvings: int) -> None:
    capacity = Capacity(halvings)
    [line] = [
        line for line in PAGE.read_text().splitlines() if f" {capacity.connections}, " in line
    ]
    memory, *values = [numbers(cell) for cell in line.strip("| ").split(" | ")]
    connections, calls, text, takes = values
    assert connections == [capacity.connections, capacity.connections_of_a_user]
    assert calls == [capacity.calls_of_all_users, capacity.calls_of_a_user]
    assert text == [capacity.text_bytes]
    assert takes == [pytest.approx(capacity.memory_bytes, rel=0.02)]
    if memory:
        assert capacity_for(int(memory[0])) == capacity != capacity_for(int(memory[0]) - 1)
    else:
        assert halvings == MOST_HALVINGS
