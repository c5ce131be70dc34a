"""Each family that the engine loads has a whole row of the grid: shapes, types, what must hold.

A family that is added without tiny models, or with fewer shapes or types than others, fails here.
The cells of this file are those on the grid's diagonal, so that each shape and each type is among
them; ``make peer`` goes over all.
"""

from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path

import pytest

from engine.family_cells import families_of_the_engine, largest_error, ways_that_change_bits
from engine.test_forward import F16_STEP, INT8_STEP, UNQUANTIZED
from family_models import FAMILY_MODELS, TYPES, family_specs
from project_files import ROOT
from tiny_encoder import ENCODER_SHAPES, ENCODERS, TinyEncoder
from tiny_gguf import TinyModelPath, TinySpec, matrices

LEAST_SHAPES = 3
DIAGONAL = [
    pytest.param(spec, id=f"{name}-{title}")
    for name in FAMILY_MODELS
    for title, spec in list(family_specs(name))[:: len(TYPES) + 1]
]


def shapes_by_type(family: str) -> dict[str, set[Hashable]]:
    """Return the shapes of a family's tiny models, by the type of their weights."""
    found: dict[str, set[Hashable]] = defaultdict(set)
    for name, model in FAMILY_MODELS.items():
        for _, spec in family_specs(name) if model.architecture == family else ():
            found[spec.weight_type].add(tuple(matrices(spec)))
    for weight_type in TYPES if family in ENCODERS else ():
        for shape in ENCODER_SHAPES:
            found[weight_type].add(tuple(TinyEncoder(family, *shape).matrices().items()))
    return found


def test_every_family_has_three_shapes_in_every_type(tmp_path: Path) -> None:
    families = families_of_the_engine(tmp_path)
    assert len(families) > 40
    for family in sorted(families):
        shapes = shapes_by_type(family)
        assert {"F32", "F16"} < set(shapes), f"{family} has no tiny models of all types"
        assert min(map(len, shapes.values())) >= LEAST_SHAPES, family


def test_the_page_has_figures_of_every_family() -> None:
    lines = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8").splitlines()
    named = [line.split(" | ")[0].strip("| ") for line in lines if line.count("|") == 10]
    assert named[2:] == [*FAMILY_MODELS, *ENCODERS]


@pytest.mark.parametrize("spec", DIAGONAL)
def test_no_way_of_feeding_changes_a_bit(tiny_model_path: TinyModelPath, spec: TinySpec) -> None:
    assert ways_that_change_bits(tiny_model_path, spec) == []


@pytest.mark.parametrize("spec", DIAGONAL)
def test_logits_are_the_oracles(tiny_model_path: TinyModelPath, spec: TinySpec) -> None:
    bound = F16_STEP if spec.weight_type in UNQUANTIZED else INT8_STEP
    assert largest_error(tiny_model_path, spec) <= bound
