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
from llamad.engine import Model
from llamad.text import tokenizer_from_metadata
from llamad_tools.checkpoints.huggingface_tokenizer import read_tokenizer
from pth_file import sentencepiece_model
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
IN_BLOCKS = ("gpt-oss",)  # the engine rounds what meets blocks to int8, and experts part at ties


@pytest.mark.parametrize("name", NAMES)
def test_a_converted_folder_has_the_logits_of_transformers(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(FOLDERS / name, folder)
    if not (folder / "tokenizer.json").exists():
        pieces = list(zip(*vocabulary(300), strict=True))
        (folder / "tokenizer.model").write_bytes(sentencepiece_model(pieces))
    expected, tokens = np.load(folder / "logits.npy"), np.load(folder / "tokens.npy").tolist()
    path = convert(folder, tmp_path / "out.gguf")
    with Model(path, n_threads=1, n_ctx=64) as model:
        actual = model.logits(tokens)
    assert name in IN_BLOCKS or _error(actual, expected) <= BOUND
    exact = reference.forward(reference.load(path), tokens)
    assert _error(exact, expected) <= REFERENCE_BOUND


WITH_TEXTS = [name for name in NAMES if (FOLDERS / name / "texts.json").exists()]


@pytest.mark.parametrize("name", WITH_TEXTS)
def test_a_converted_tokenizer_has_the_ids_of_tokenizers(name: str) -> None:
    folder = FOLDERS / name
    config = json.loads((folder / "config.json").read_text())
    ours = tokenizer_from_metadata(read_tokenizer(folder, config))
    for text, ids in json.loads((folder / "texts.json").read_text()).items():
        assert ours.encode(text, add_bos=False) == ids, text
        assert ours.decode(ids) == text


def _error(actual: Logits, expected: Logits) -> float:
    """Return the root mean square of a row's error, the largest, in units of all logits'."""
    return float((np.sqrt(np.mean((actual - expected) ** 2, axis=-1)) / expected.std()).max())
