"""Converted folders have the logits that transformers itself computes.

``tests/transformers_folders.py`` makes the folders, in an environment of its own: ``make
transformers``.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import reference
from checkpoints.converting import convert
from engine.test_forward import INT8_STEP
from llamad.engine import Model
from llamad.text import tokenizer_from_metadata
from llamad_tools.checkpoints.huggingface_tokenizer import read_tokenizer
from pth_file import sentencepiece_model
from reference import Routes, engine_rounding
from tiny_gguf import vocabulary

FOLDERS = Path(__file__).resolve().parents[2] / "build" / "transformers"
NAMES = sorted(path.name for path in FOLDERS.glob("*"))

if not NAMES:
    pytest.skip(f"no {FOLDERS}: make transformers writes it", allow_module_level=True)

Logits = NDArray[Any]

# Of the logits' standard deviation: both compute in float32, llamad keeps keys and values in f16.
# A wrong formula or a wrong tensor shows 0.1 to 1.
BOUND = 0.005
REFERENCE_BOUND = 1e-4  # of the numpy reference, which has no f16

# Experts in blocks, as such folders have them, meet activations that the engine rounds to int8: a
# folder's logits then are those of the oracle that rounds alike, within INT8_STEP, and no longer
# transformers'. What that rounding costs, where every token goes to the experts that transformers
# chose; seen: 0.058. A token that goes to another one (seen: 3 of 160 choices) shows up to 0.16.
IN_BLOCKS = ("gpt-oss",)
ROUNDING_BOUND = 0.08
ROUTER_TIE = 0.1  # of the router's logits: how far rounding moves one over another; seen: 0.094


def converted(name: str, folder: Path) -> Path:
    """Return the file that a folder of transformers becomes."""
    copy = folder / name
    shutil.copytree(FOLDERS / name, copy)
    if not (copy / "tokenizer.json").exists():
        pieces = list(zip(*vocabulary(300), strict=True))
        (copy / "tokenizer.model").write_bytes(sentencepiece_model(pieces))
    return convert(copy, folder / "out.gguf")


def logits_of(name: str) -> tuple[Logits, list[int]]:
    """Return what transformers computed, and of which tokens."""
    folder = FOLDERS / name
    return np.load(folder / "logits.npy"), np.load(folder / "tokens.npy").tolist()


@pytest.mark.parametrize("name", NAMES)
def test_a_converted_folder_has_the_logits_of_transformers(tmp_path: Path, name: str) -> None:
    expected, tokens = logits_of(name)
    path = converted(name, tmp_path)
    oracle = reference.load(path)
    with Model(path, n_threads=1, n_ctx=64) as model:
        actual = model.logits(tokens)
    if name in IN_BLOCKS:
        rounded = reference.forward(oracle, tokens, engine_rounding("f16"))
        assert row_error(actual, rounded) <= INT8_STEP
    else:
        assert row_error(actual, expected) <= BOUND
    assert row_error(reference.forward(oracle, tokens), expected) <= REFERENCE_BOUND


@pytest.mark.parametrize("name", [name for name in NAMES if name in IN_BLOCKS])
def test_only_rounding_parts_experts_in_blocks_from_transformers(tmp_path: Path, name: str) -> None:
    """Given the experts that exact arithmetic chooses; and it parts from them near ties only."""
    expected, tokens = logits_of(name)
    oracle = reference.load(converted(name, tmp_path))
    exact, rounded = Routes(), Routes()
    reference.forward(oracle, tokens, routes=exact)
    reference.forward(oracle, tokens, engine_rounding("f16"), routes=rounded)
    for first, second, margins in zip(exact.chosen, rounded.chosen, exact.margins, strict=True):
        others = (np.sort(first) != np.sort(second)).any(axis=-1)
        assert (margins[others] <= ROUTER_TIE).all()
    same = reference.forward(oracle, tokens, engine_rounding("f16"), routes=Routes(given=exact))
    assert row_error(same, expected) <= ROUNDING_BOUND


WITH_TEXTS = [name for name in NAMES if (FOLDERS / name / "texts.json").exists()]


@pytest.mark.parametrize("name", WITH_TEXTS)
def test_a_converted_tokenizer_has_the_ids_of_tokenizers(name: str) -> None:
    folder = FOLDERS / name
    config = json.loads((folder / "config.json").read_text())
    ours = tokenizer_from_metadata(read_tokenizer(folder, config))
    for text, ids in json.loads((folder / "texts.json").read_text()).items():
        assert ours.encode(text, add_bos=False) == ids, text
        assert ours.decode(ids) == text


def row_error(actual: Logits, expected: Logits) -> float:
    """Return the root mean square of a row's error, the largest, in units of all logits'."""
    return float((np.sqrt(np.mean((actual - expected) ** 2, axis=-1)) / expected.std()).max())
