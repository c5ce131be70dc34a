"""What must hold of a model in any family, shape and type: the oracle's logits, the same bits.

A cell of the grid is one tiny model of ``family_models.py``. ``test_family_grid.py`` asks it of
some cells of each family, ``tests/tools/test_llama_cpp_families.py`` (``make peer``) of all.
"""

from pathlib import Path

import numpy as np

from engine.feeding import Logits, bits, feed, feed_together, random_tokens
from engine.test_batch_invariance import open_engine, random_steps, sharing
from engine.test_forward import row_errors
from llamad.engine.bindings import Engine, EngineModel
from llamad.engine.single_sequence import BLOCK_TOKENS, SingleSequence
from llamad.errors import LlamadError
from reference import engine_rounding, forward, load
from tiny_gguf import TinyModelPath, TinySpec, write_tiny_model

N_TOKENS, N_CTX = 40, 64  # tokens: a block and a part


def in_sevens(engine: Engine, tokens: list[int]) -> Logits:
    return feed(engine, tokens, chunk=7)


def one_by_one(engine: Engine, tokens: list[int]) -> Logits:
    return feed(engine, tokens, chunk=1)


def in_company(engine: Engine, tokens: list[int]) -> Logits:
    other = random_tokens(2, 20)
    return feed_together(engine, [tokens, other], random_steps(4, [len(tokens), len(other)]))[0]


def after_preemption(engine: Engine, tokens: list[int]) -> Logits:
    """It loses its blocks and its state to another, and is computed again where a third was."""
    feed(engine, tokens[:30], chunk=9)
    feed(engine, random_tokens(3, N_TOKENS), chunk=20, sequence=SingleSequence(engine, 1))
    feed(engine, random_tokens(2, N_TOKENS), chunk=N_TOKENS)
    sequence = SingleSequence(engine, 1)
    read = feed(engine, tokens[:31], chunk=31, sequence=sequence)
    return np.concatenate([read, feed(engine, tokens[31:], chunk=1, sequence=sequence)])


def behind_a_shared_prefix(engine: Engine, tokens: list[int]) -> Logits:
    owner = SingleSequence(engine)
    prefix = feed(engine, tokens[:BLOCK_TOKENS], chunk=BLOCK_TOKENS, sequence=owner)
    sharer = sharing(engine, owner, BLOCK_TOKENS)
    tail = feed(engine, tokens[BLOCK_TOKENS:], chunk=3, sequence=sharer)
    return np.concatenate([prefix, tail])


WAYS = (in_sevens, one_by_one, in_company, after_preemption, behind_a_shared_prefix)


def ways_that_change_bits(tiny_model_path: TinyModelPath, spec: TinySpec) -> list[str]:
    """Return the ways of feeding that have other logits than the prompt fed whole."""
    tokens = random_tokens(1, N_TOKENS)
    with open_engine(tiny_model_path, spec, n_ctx=N_CTX, n_sequences=2) as engine:
        whole = bits(feed(engine, tokens, chunk=N_TOKENS))
        return [way.__name__ for way in WAYS if bits(way(engine, tokens)) != whole]


def largest_error(tiny_model_path: TinyModelPath, spec: TinySpec) -> float:
    """Return the largest error of a row, against the oracle with the engine's roundings."""
    path, tokens = tiny_model_path(spec), random_tokens(7, N_TOKENS)
    expected = forward(load(path), tokens, engine_rounding("f16"), n_ctx=N_CTX)
    with open_engine(tiny_model_path, spec, n_ctx=N_CTX) as engine:
        return float(row_errors(feed(engine, tokens, chunk=N_TOKENS), expected).max())


def families_of_the_engine(folder: Path) -> set[str]:
    """Return the architectures that the engine names when it refuses another one."""
    path = write_tiny_model(folder / "other.gguf", TinySpec(architecture="qwen2"))
    name = b"\x05\0\0\0\0\0\0\0qwen"
    path.write_bytes(path.read_bytes().replace(name + b"2", name + b"9"))
    try:
        EngineModel(path).close()
    except LlamadError as error:
        before, _, named = error.message.partition("'qwen9' is not supported (")
        assert before
        return set(named.partition(" are)")[0].split(", "))
    raise AssertionError("'qwen9' was opened")
