"""all-MiniLM-L6-v2, converted: its vectors are those of the published weights.

``make peer`` fetches the folder.
"""

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import minilm
from checkpoints.converting import convert
from llamad.engine.bindings import Engine, EngineModel, Run
from llamad.text import tokenizer_from_metadata
from llamad.text.tokenizer import Tokenizer
from minilm import QUESTIONS, SENTENCES, SUBJECTS, PublishedModel

if not minilm.FOLDER.exists():
    pytest.skip(minilm.MISSING, allow_module_level=True)

Vectors = NDArray[np.float64]

LEAST_COSINE = {"F32": 0.9999, "F16": 0.9999, "Q8_0": 0.999}
LIBRARY = [20 * i + 7 * i % 20 for i in range(len(SUBJECTS))]  # a sentence for each question
TEXTS = (*SENTENCES, *QUESTIONS)


def vectors_of(path: Path, tokenizer: Tokenizer) -> Vectors:
    """Return the vectors of all texts, eight a step."""
    found = []
    with EngineModel(str(path)) as model, Engine(model, n_threads=2, n_ctx=512) as engine:
        dim = model.info.dim
        for first in range(0, len(TEXTS), 8):
            tokens = [tokenizer.encode(text) for text in TEXTS[first : first + 8]]
            engine.forward([Run(ids, 0, (i,), 0) for i, ids in enumerate(tokens)])
            row = 0
            for ids in tokens:
                sums = array("d", bytes(8 * dim))
                engine.add_rows(row, len(ids), sums)
                row += len(ids)
                found.append(np.array(sums) / np.linalg.norm(sums))
    return np.stack(found)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = convert(minilm.FOLDER, tmp_path_factory.mktemp("minilm") / "model.gguf", "Q8_0")
    with EngineModel(str(path)) as model:
        assert model.metadata()["bert.pooling_type"] == 1
        return tokenizer_from_metadata(model.metadata())


@pytest.fixture(scope="module")
def published(tokenizer: Tokenizer) -> Vectors:
    model = PublishedModel()
    return np.stack([model.vector(tokenizer.encode(text)) for text in TEXTS])


def similarity(vectors: Vectors, sentences: Sequence[int]) -> Vectors:
    """Return the cosines (question, sentence)."""
    result: Vectors = vectors[len(SENTENCES) :] @ vectors[sentences].T
    return result


def best(vectors: Vectors, sentences: Sequence[int]) -> list[list[int]]:
    """Return the places of the five sentences most alike, in their order, for each question."""
    found: list[list[int]] = np.argsort(-similarity(vectors, sentences), axis=1)[:, :5].tolist()
    return found


@pytest.mark.parametrize("type_name", LEAST_COSINE)
def test_vectors_and_rankings_are_those_of_the_published_model(
    tmp_path: Path, tokenizer: Tokenizer, published: Vectors, type_name: str
) -> None:
    path = convert(minilm.FOLDER, tmp_path / "model.gguf", type_name)
    found = vectors_of(path, tokenizer)
    assert len(SENTENCES) == 200
    assert np.sum(found * published, axis=1).min() >= LEAST_COSINE[type_name]
    assert best(found, LIBRARY) == best(published, LIBRARY)
    if type_name != "Q8_0":  # which exchanges some of 200 that are almost equally alike
        assert best(found, range(len(SENTENCES))) == best(published, range(len(SENTENCES)))
