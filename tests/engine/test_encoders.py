"""Encoders: vectors of whole texts, against numpy, alone and in company."""

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.test_forward import F16_STEP, INT8_STEP, row_errors
from llamad.engine.bindings import Engine, EngineError, EngineModel, Run
from reference import engine_rounding
from reference.encoder import encode, rank
from tiny_encoder import ENCODER_SHAPES, ENCODERS, TinyEncoder

BOUNDS = {"F32": F16_STEP, "F16": F16_STEP, "Q8_0": INT8_STEP}
LENGTHS = (1, 2, 4, 5, 33, 64, 300)  # within a tile, across blocks, across chunks of attention


def tokens_of(encoder: TinyEncoder, n: int, seed: int = 0) -> list[int]:
    rng = np.random.default_rng(seed)
    return [int(token) for token in rng.integers(0, encoder.vocab_size, n)]


def rows_of(engine: Engine, texts: Sequence[Sequence[int]], dim: int) -> list[NDArray[np.float64]]:
    """Return the rows of every token of each text, all of them in one step."""
    runs, block = [], 0
    for tokens in texts:
        n_blocks = -(-len(tokens) // engine.block_tokens)
        runs.append(Run(tokens, 0, tuple(range(block, block + n_blocks)), 0))
        block += n_blocks
    engine.forward(runs)
    rows, first = [], 0
    for tokens in texts:
        found = []
        for i in range(len(tokens)):
            sums = array("d", bytes(8 * dim))
            engine.add_rows(first + i, 1, sums)
            found.append(np.array(sums))
        rows.append(np.stack(found))
        first += len(tokens)
    return rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "encoder.gguf"


def open_engine(path: Path, *, n_threads: int = 2, cpu: str | None = None) -> Engine:
    return Engine(
        EngineModel(str(path)), n_threads=n_threads, n_ctx=512, n_blocks=64, n_batch=512, cpu=cpu
    )


@pytest.mark.parametrize("weight_type", BOUNDS)
@pytest.mark.parametrize("shape", ENCODER_SHAPES)
@pytest.mark.parametrize("architecture", ENCODERS)
def test_every_row_is_what_numpy_computes(
    path: Path,
    architecture: str,
    shape: tuple[int, int, int, int],
    weight_type: str,
) -> None:
    """By the oracle that rounds what the engine rounds."""
    encoder = TinyEncoder(architecture, *shape, weight_type=weight_type)
    encoder.write(path)
    with open_engine(path) as engine, open_engine(path, cpu="generic") as generic:
        for n in LENGTHS:
            tokens = tokens_of(encoder, n, seed=n)
            expected = encode(path, tokens, engine_rounding("f16"))
            for which in (engine, generic):
                (rows,) = rows_of(which, [tokens], encoder.dim)
                assert row_errors(rows, expected).max() <= BOUNDS[weight_type], n


@pytest.mark.parametrize("weight_type", ["F32", "F16", "Q8_0"])
@pytest.mark.parametrize("shape", ENCODER_SHAPES)
@pytest.mark.parametrize("architecture", ENCODERS)
def test_company_changes_no_bit(
    path: Path, architecture: str, shape: tuple[int, int, int, int], weight_type: str
) -> None:
    encoder = TinyEncoder(architecture, *shape, weight_type=weight_type)
    encoder.write(path)
    many = (2,) * 20  # more than one product takes first tokens of
    texts = [tokens_of(encoder, n, seed=n) for n in (3, 40, 1, 70, 33, *many)]
    with open_engine(path) as engine, open_engine(path, n_threads=1) as other:
        alone = [rows_of(engine, [text], encoder.dim)[0] for text in texts]
        for rows in (rows_of(engine, texts, encoder.dim), rows_of(other, texts, encoder.dim)):
            for one, together in zip(alone, rows, strict=True):
                assert one.tobytes() == together.tobytes()


def test_rows_are_summed(path: Path) -> None:
    encoder = TinyEncoder()
    encoder.write(path)
    with open_engine(path) as engine:
        (rows,) = rows_of(engine, [tokens_of(encoder, 9)], encoder.dim)
        sums = array("d", [1.0] * encoder.dim)
        engine.add_rows(2, 5, sums)
        assert np.allclose(np.array(sums), 1.0 + rows[2:7].sum(axis=0), rtol=1e-12)
        for first, n in ((9, 1), (0, 10), (2**40, 1)):
            with pytest.raises(EngineError, match="the last forward has 9"):
                engine.add_rows(first, n, sums)
        with pytest.raises(EngineError, match="n_sums is 3, must be 64 to 64"):
            engine.add_rows(0, 1, array("d", [0.0] * 3))


def test_a_text_is_one_run_from_its_beginning_and_has_no_logits(path: Path) -> None:
    TinyEncoder().write(path)
    with open_engine(path) as engine:
        assert EngineModel(str(path)).info.is_encoder == 1
        with pytest.raises(EngineError, match="an encoder's begins at 0 and keeps none"):
            engine.forward([Run([1, 2], 0, (0,), 1)])
        with pytest.raises(EngineError, match="an encoder's begins at 0 and keeps none"):
            engine.forward([Run([1, 2], 3, (0,), 0)])


def test_no_position_is_beyond_the_learned_ones(path: Path) -> None:
    TinyEncoder(n_ctx=40).write(path)
    model = EngineModel(str(path))
    with pytest.raises(EngineError, match="n_ctx is 41, must be 1 to 40"):
        Engine(model, n_threads=1, n_ctx=41)
    with Engine(model, n_threads=1, n_ctx=40) as engine:
        engine.forward([Run([1] * 40, 0, (0, 1), 0)])


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("weight_type", ["F32", "Q8_0"])
def test_scores_of_a_model_that_ranks_are_what_numpy_computes(
    path: Path, dense: bool, weight_type: str
) -> None:
    encoder = TinyEncoder(pooling=4, rank_scores=3, rank_dense=dense, weight_type=weight_type)
    encoder.write(path)
    with open_engine(path) as engine:
        assert EngineModel(str(path)).info.n_rank_scores == 3
        for n in LENGTHS:
            tokens = tokens_of(encoder, n, seed=n)
            rows_of(engine, [tokens], encoder.dim)
            sums = array("d", bytes(8 * encoder.dim))
            engine.add_rows(0, 1, sums)
            expected = rank(path, tokens, engine_rounding("f16"))
            scores = np.array([engine.rank(sums, 3)])
            assert row_errors(scores, expected[None]) <= BOUNDS[weight_type]
        with pytest.raises(EngineError, match="n_scores is 2, must be 3 to 3"):
            engine.rank(sums, 2)
        with pytest.raises(EngineError, match="n_row is 1, must be 64 to 64"):
            engine.rank(array("d", [0.0]), 3)


def test_a_file_that_ranks_without_the_tensors_for_it_is_refused(path: Path) -> None:
    TinyEncoder(pooling=4).write(path)
    with pytest.raises(EngineError, match=r"there is no cls\.output\.weight"):
        EngineModel(str(path))
    TinyEncoder(pooling=4, rank_scores=17).write(path)
    with pytest.raises(EngineError, match="has 17 rows, must be 1 to 16"):
        EngineModel(str(path))
    TinyEncoder().write(path)
    with open_engine(path) as engine, pytest.raises(EngineError, match="does not rank texts"):
        engine.rank(array("d", bytes(8 * 64)), 1)
