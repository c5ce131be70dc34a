"""docs/models.md, "What fits": each figure of the table is the planner's, or computed from it."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from llamad.config import ModelConfig
from llamad_tools.advice.recommendation import BOARD_BANDWIDTH, SYSTEM_BYTES
from llamad_tools.advice.shape import ModelShape
from llamad_tools.quantize.mixes import MIXES
from unit.llama_shapes import llama_shape

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
MIB, GIB = 1 << 20, 1 << 30
DISKS = {"Pi 4": {"a card": 40e6, "USB 3": 350e6}, "Pi 5": {"a card": 80e6, "NVMe": 400e6}}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the page as it is written, and what it is about."""

    board: str
    model: str  # the beginning of its cell
    kv_type: str = "f16"


ROWS = (
    Row("4 GB", "3B, Q4_0"),
    Row("4 GB", "7B, Q3_K_M", "q8_0"),
    Row("4 GB", "7B, Q4_0"),
    Row("8 GB", "7B, Q4_0"),
    Row("8 GB", "13B, Q4_0", "q8_0"),
    Row("4 GB", "13B, Q4_0"),
)


@cache
def shape_of(size: str) -> ModelShape:
    if size == "3B":
        return llama_shape(28, 3072, 8192, 24, kv_heads=8, context=8192, tied=True)
    return llama_shape(32, 4096, 11008, 32) if size == "7B" else llama_shape(40, 5120, 13824, 40)


def cells() -> list[list[str]]:
    """Return the cells of the table's rows: board, model, in memory, Pi 4, Pi 5."""
    section = PAGE.read_text().partition("## What fits")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if re.match(r"\| \d", line)]
    return [line.strip("| ").split(" | ") for line in lines]


def numbers(text: str, unit: str) -> list[float]:
    return [float(n.replace(",", "")) for n in re.findall(rf"([\d.,]+) {unit}", text)]


def rounded(value: float, written: str) -> float:
    """Return a value with as many digits behind the point as a written number has."""
    return round(value, len(written.partition(".")[2]))


def test_the_table_has_these_rows() -> None:
    assert [cell[0] for cell in cells()] == [row.board for row in ROWS]
    for cell, row in zip(cells(), ROWS, strict=True):
        assert cell[1].startswith(row.model)
        assert ("`q8_0`" in cell[1]) is (row.kv_type == "q8_0")


@pytest.mark.parametrize("index", range(len(ROWS)))
def test_a_row_is_what_the_planner_says(index: int) -> None:
    row = ROWS[index]
    board, model, in_memory, *speeds = cells()[index]
    budget = int(board.split()[0]) * GIB - SYSTEM_BYTES
    config = ModelConfig(memory_budget=budget, kv_type=row.kv_type)
    size, mix = row.model.split(", ")
    shape = shape_of(size)
    plan, sizes = shape.plan(MIXES[mix], config), shape.sizes(MIXES[mix], config)

    for gib in numbers(model.partition("(")[2].partition(")")[0], "GiB"):
        assert gib == round(sizes.file_bytes / GIB, 1)
    for tokens in numbers(model, "tokens"):
        assert tokens == plan.n_ctx
    if in_memory == "all":
        assert plan.model_fits
    elif mib := numbers(in_memory, "MiB"):
        assert mib == [pytest.approx(plan.streamed_bytes / MIB, rel=0.01)]
    else:
        assert in_memory.startswith("a third")
        assert 0.3 < plan.resident_bytes / sizes.file_bytes < 0.4
        assert numbers(in_memory, "GiB") == [round(plan.streamed_bytes / GIB, 1)]

    for name, cell in zip(BOARD_BANDWIDTH, speeds, strict=True):
        from_memory = sizes.streamed_bytes / BOARD_BANDWIDTH[name]
        if plan.model_fits:
            assert float(cell) == rounded(1 / from_memory, cell)
            continue
        for part in cell.split(", "):
            speed, disk = part.split(" from ")
            seconds = max(plan.streamed_bytes / DISKS[name][disk], from_memory)
            assert float(speed) == rounded(1 / seconds, speed)
