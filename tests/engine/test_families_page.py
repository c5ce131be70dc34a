"""docs/models.md names exactly the families that the engine loads, and refuses none of them."""

import re
from pathlib import Path

import pytest

from llamad.engine.bindings import EngineModel
from llamad.errors import LlamadError
from project_files import ROOT
from tiny_gguf import TinyModelPath, TinySpec

PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
REFUSED = PAGE.partition("| refused | because |")[2].partition("\n\n")[0]


def families_of_the_page() -> set[str]:
    row = next(line for line in PAGE.splitlines() if line.startswith("| families |"))
    return set(re.findall(r"`([^`]+)`", row))


@pytest.fixture
def families(tiny_model_path: TinyModelPath, tmp_path: Path) -> set[str]:
    """Return the families of the engine: those that it names when it refuses one."""
    content = tiny_model_path(TinySpec(architecture="qwen2")).read_bytes()
    path = tmp_path / "other.gguf"
    path.write_bytes(content.replace(b"\x05\0\0\0\0\0\0\0qwen2", b"\x05\0\0\0\0\0\0\0qwen9"))
    with pytest.raises(LlamadError, match="'qwen9' is not supported") as caught:
        EngineModel(path)
    found = re.search(r"\((.*) are\)", caught.value.message)
    assert found is not None
    return set(found[1].split(", "))


def test_the_page_names_the_families_of_the_engine(families: set[str]) -> None:
    assert families_of_the_page() == families


def test_the_page_refuses_nothing_that_is_loaded(families: set[str]) -> None:
    first_cells = "".join(line.split("|")[1] for line in REFUSED.strip().splitlines()[1:])
    refused = set(re.findall(r"`([^`]+)`", first_cells))
    assert refused
    assert not refused & families
