"""The layer that guesses tokens equals the numpy oracle, and what it reads depends on no step.

Guesses behind a token that was drawn are compared in three ways of feeding; they are the same bits
whole, in pieces, in company, from a kept state, and beside guesses that were wrong. And whatever is
guessed, the model's own logits stay as they are without the layer.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.feeding import Logits, bits, random_tokens
from engine.test_forward import F16_STEP, FLOAT_NOISE, INT8_STEP, row_errors
from family_models import FAMILY_MODELS
from llamad.engine.bindings import Engine, EngineError, EngineModel, Run
from reference import engine_rounding, load
from reference.transformer import guesses
from tiny_gguf import TinyModelPath

N_TOKENS, N_KNOWN = 70, 67  # of a sequence; of those, drawn: the rest stands for guesses
BLOCKS, OTHERS = (2, 0, 1), (3, 4, 5)
DENSE = replace(FAMILY_MODELS["qwen35"], n_guess_layers=1)
SPECS = {
    "F32": DENSE,
    "F16": replace(DENSE, weight_type="F16", n_kv_heads=1),
    "Q8_0": replace(DENSE, weight_type="Q8_0", tied_output=True, seed=3),
    "Q4_K": replace(DENSE, weight_type="Q4_K", dim=256, hidden_dim=256, delta_dim=64),
    "experts": replace(FAMILY_MODELS["qwen35moe"], n_guess_layers=1),
}


def open_engine(path: Path, *, guesses: bool = True, cpu: str | None = None) -> Engine:
    with EngineModel(path, guesses=guesses) as model:
        assert model.info.n_guess_layers == int(guesses)
        return Engine(model, n_threads=2, n_ctx=96, n_blocks=8, n_logits=8, n_states=4, cpu=cpu)


def guess_on(
    engine: Engine, tokens: Sequence[int], n_known: int, row: int, blocks: Sequence[int] = BLOCKS
) -> Logits:
    """Guess behind token n_known - 1 and each that follows; return the logits of the guesses."""
    rows = []
    for position in range(n_known - 1, len(tokens)):
        engine.guess([Run(tokens[position : position + 1], position, blocks, 1, row=row)])
        row = 0
        rows.append(np.array(engine.logits(0)))
    return np.stack(rows)


def fed(engine: Engine, tokens: Sequence[int], chunk: int) -> None:
    """Feed tokens to a new sequence, ``chunk`` in a step, and keep the last row."""
    for begin in range(0, len(tokens), chunk):
        engine.forward([Run(tokens[begin : begin + chunk], begin, BLOCKS, 1)])


@pytest.mark.parametrize("name", SPECS)
def test_guesses_equal_the_oracle(tiny_model_path: TinyModelPath, name: str) -> None:
    spec = SPECS[name]
    path = tiny_model_path(spec)
    oracle, quantized = load(path), name.startswith("Q")
    tokens = random_tokens(1, N_TOKENS)
    expected = guesses(oracle, tokens, N_KNOWN, engine_rounding("f16"))
    with open_engine(path) as engine:
        found = {}
        for chunk in (N_TOKENS, 7, 1):
            fed(engine, tokens[: N_KNOWN - 1], chunk)
            found[chunk] = guess_on(engine, tokens, N_KNOWN, 0)
    errors = row_errors(found[1], expected)
    print(name, errors)
    assert errors.max() < (2 * INT8_STEP if quantized else max(F16_STEP, FLOAT_NOISE))
    assert bits(found[1]) == bits(found[7]) == bits(found[N_TOKENS])


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
def test_what_the_layer_sees_is_felt(tiny_model_path: TinyModelPath, kv_type: str) -> None:
    """A test of the oracle's test: another early token is another guess, and the bits say so."""
    tokens = random_tokens(1, N_TOKENS)
    with (
        EngineModel(tiny_model_path(DENSE), guesses=True) as model,
        Engine(model, n_threads=1, n_ctx=96, kv_type=kv_type) as engine,
    ):
        seen = []
        for first in (tokens[1], tokens[1] + 1):
            tokens[1] = first
            engine.forward([Run(tokens[: N_KNOWN - 1], 0, (0, 1, 2), 1)])
            seen.append(bits(guess_on(engine, tokens, N_KNOWN, 0, (0, 1, 2))))
    assert seen[0] != seen[1]


@pytest.mark.parametrize("name", ["Q8_0", "experts"])
def test_company_states_and_wrong_guesses_change_no_bit(
    tiny_model_path: TinyModelPath, name: str
) -> None:
    tokens, other = random_tokens(1, N_TOKENS), random_tokens(2, 50)
    known = tokens[: N_KNOWN - 1]
    path = tiny_model_path(SPECS[name])
    with open_engine(path) as engine:
        fed(engine, known, N_TOKENS)
        alone = bits(guess_on(engine, tokens, N_KNOWN, 0))

        # beside another sequence, in one step and in one guess
        engine.forward(
            [Run(other, 0, OTHERS, 3, state_out=1), Run(known, 0, BLOCKS, 1, state_out=0)]
        )
        drawn = [Run(other[-1:], 50, OTHERS, 1, row=2), Run(tokens[-4:-3], 66, BLOCKS, 1, row=3)]
        engine.guess(drawn)
        together = [np.array(engine.logits(1)), *guess_on(engine, tokens, N_KNOWN + 1, 1)]
        assert bits(np.stack(together)) == alone

        # from states inside the prompt, changed in place and kept
        cuts = ((0, 32, 0, 0), (32, 64, 0, 1), (64, 65, 1, 2), (65, 66, 2, 2))
        runs = [Run(known[a:b], a, BLOCKS, int(b == 66), old, new) for a, b, old, new in cuts]
        engine.forward(runs)
        assert bits(guess_on(engine, tokens, N_KNOWN, 0)) == alone
        engine.forward([Run(known[64:], 64, BLOCKS, 1, state_in=1, state_out=3)])
        assert bits(guess_on(engine, tokens, N_KNOWN, 0)) == alone

        # a step that checks wrong guesses: the row of the last right one is gone on with
        engine.forward([Run([*known[64:], 7, 8, 9], 64, BLOCKS, 4, state_in=1, state_out=3)])
        assert bits(guess_on(engine, tokens, N_KNOWN, 0)) == alone

        # in the blocks and the state of another engine
        blocks = {block: engine.block_read(block) for block in BLOCKS}
        state = engine.state_read(1)
        with open_engine(path, cpu="generic") as second:
            for block, data in blocks.items():
                second.block_write(block, data)
            second.state_write(2, state)
            second.forward([Run(known[64:], 64, BLOCKS, 1, state_in=2, state_out=0)])
            assert bits(guess_on(second, tokens, N_KNOWN, 0)) == alone


@pytest.mark.parametrize("name", ["F32", "Q4_K", "experts"])
def test_no_guess_changes_a_bit_of_the_answer(tiny_model_path: TinyModelPath, name: str) -> None:
    path, tokens = tiny_model_path(SPECS[name]), random_tokens(4, N_TOKENS)
    seen = []
    for guessing in (False, True):
        with open_engine(path, guesses=guessing) as engine:
            engine.forward([Run(tokens[:40], 0, BLOCKS, 1)])
            rows = [np.array(engine.logits(0))]
            for position in range(40, N_TOKENS):
                if guessing:
                    guess_on(engine, [*tokens[: position + 1], 5, 6, 7], position + 1, 0)
                engine.forward([Run(tokens[position : position + 1], position, BLOCKS, 1)])
                rows.append(np.array(engine.logits(0)))
            seen.append(bits(np.stack(rows)))
    assert seen[0] == seen[1]


def test_wrong_guesses_are_refused(tiny_model_path: TinyModelPath) -> None:
    tokens = random_tokens(1, 8)
    path = tiny_model_path(DENSE)
    good = Run(tokens[-1:], 8, (0,), 1)
    cases = [
        (replace(good, n_out=0), "a guess takes one with its logits"),
        (replace(good, tokens=tokens[:2]), "run 0: 2 tokens at position 8"),
        (replace(good, position=0), "run 0: 1 tokens at position 0"),
        (replace(good, row=1), "run 0: behind row 1, 1 rows were kept"),
    ]
    with open_engine(path) as engine:
        with pytest.raises(EngineError, match="run 0: behind row 0, 0 rows were kept"):
            engine.guess([good])
        engine.forward([Run(tokens, 0, (0,), 1)])
        for run, message in cases:
            with pytest.raises(EngineError, match=message):
                engine.guess([run])
        engine.guess([good])  # what was refused changed nothing
        with pytest.raises(EngineError, match="run 0: token 0 is 300"):
            engine.guess([replace(good, tokens=[300])])
        with pytest.raises(EngineError, match="0 rows were kept"):
            engine.guess([good])
    with open_engine(path, guesses=False) as engine:
        engine.forward([Run(tokens, 0, (0,), 1)])
        with pytest.raises(EngineError, match="opened without a layer that guesses"):
            engine.guess([good])


def test_the_layer_is_counted_where_it_is_used_only(tiny_model_path: TinyModelPath) -> None:
    path, plain = tiny_model_path(DENSE), tiny_model_path(replace(DENSE, n_guess_layers=0))
    with (
        EngineModel(plain) as without,
        EngineModel(plain, guesses=True) as has_none,
        EngineModel(path) as unused,
        EngineModel(path, guesses=True) as used,
    ):
        same = ("weight_bytes", "streamed_bytes", "state_bytes", "kv_bytes_per_token_f16")
        for name in (*same, "n_layers", "n_guess_layers"):
            value = getattr(without.info, name)
            assert value == getattr(has_none.info, name) == getattr(unused.info, name), name
        assert len(without.extents()) == len(unused.extents())
        assert used.info.n_layers == 4
        assert used.info.n_guess_layers == 1
        assert used.info.streamed_bytes == without.info.streamed_bytes  # a token needs none of it
        assert used.info.state_bytes == without.info.state_bytes + 4 * DENSE.dim
        assert used.info.kv_bytes_per_token_f16 == 2 * without.info.kv_bytes_per_token_f16
        more = sum(e.n_bytes for e in used.extents()) - sum(e.n_bytes for e in without.extents())
        assert more == used.info.weight_bytes - without.info.weight_bytes > 0
        own = [e for e in used.extents() if e.layer == 4]
        assert {e.role.value for e in own} == {"vector"}
        assert sum(e.n_bytes for e in own) == more


def _renamed(path: Path, old: bytes, new: bytes) -> Path:
    assert len(old) == len(new)
    data = path.read_bytes()
    assert old in data
    target = path.with_name(new.decode().replace("/", "_") + ".gguf")
    target.write_bytes(data.replace(old, new))
    return target


@pytest.mark.parametrize(
    "tensor", ["nextn.eh_proj", "nextn.enorm", "nextn.hnorm", "attn_k", "ffn_down", "attn_norm"]
)
def test_half_a_layer_is_refused_by_the_tensor_that_is_missing(
    tiny_model_path: TinyModelPath, tmp_path: Path, tensor: str
) -> None:
    path = tmp_path / "whole.gguf"
    path.write_bytes(tiny_model_path(DENSE).read_bytes())
    name = f"blk.4.{tensor}.weight".encode()
    broken = _renamed(path, name, name[:-6] + b"w_ight")
    with pytest.raises(EngineError, match=f"tensor '{name.decode()}' is missing"):
        EngineModel(broken, guesses=True)
    with EngineModel(broken) as model:  # an answer needs none of it
        assert model.info.n_guess_layers == 0


def test_a_file_without_any_of_the_layers_tensors_has_no_layer_that_guesses(
    tiny_model_path: TinyModelPath, tmp_path: Path
) -> None:
    path = tmp_path / "whole.gguf"
    path.write_bytes(tiny_model_path(DENSE).read_bytes())
    with EngineModel(_renamed(path, b"blk.4.nextn.", b"blk.4.n_xtn."), guesses=True) as model:
        assert model.info.n_guess_layers == 0


def test_the_models_last_norm_serves_where_the_layer_has_none(
    tiny_model_path: TinyModelPath, tmp_path: Path
) -> None:
    tokens = random_tokens(1, N_TOKENS)
    path = tmp_path / "whole.gguf"
    path.write_bytes(tiny_model_path(DENSE).read_bytes())
    other = _renamed(path, b"blk.4.nextn.shared_head_norm", b"blk.4.n_xtn.shared_head_norm")
    seen = []
    for one in (path, other):
        with open_engine(one) as engine:
            fed(engine, tokens[: N_KNOWN - 1], N_TOKENS)
            seen.append(bits(guess_on(engine, tokens, N_KNOWN, 0)))
    assert seen[0] != seen[1]
