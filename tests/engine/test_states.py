"""What layers without attention remember: states in slots, which runs begin with and leave.

A state that is kept, a state inside a prompt, a step that is done again: the same bits always.
"""

from collections.abc import Sequence

import numpy as np
import pytest

from engine.feeding import bits, random_tokens
from engine.test_batch_invariance import fed_whole, open_engine
from family_models import FAMILY_MODELS
from llamad.engine.bindings import Engine, EngineError, Run
from tiny_gguf import TinyModelPath, TinySpec

N_TOKENS = 70
BLOCKS = (0, 1, 2)
SPECS = [spec for spec in FAMILY_MODELS.values() if spec.has_states]


def last_logits(engine: Engine, runs: Sequence[Run], n: int = 1) -> bytes:
    """Run a step; return the last n kept rows."""
    engine.forward(runs)
    n_kept = sum(run.n_out for run in runs)
    return bits(np.stack([np.array(engine.logits(k)) for k in range(n_kept - n, n_kept)]))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.architecture)
def test_a_state_that_is_kept_can_be_gone_on_with_again(
    tiny_model_path: TinyModelPath, spec: TinySpec
) -> None:
    """As guesses need it: what follows a wrong guess is computed from the state before it."""
    tokens = random_tokens(1, N_TOKENS)
    with open_engine(tiny_model_path, spec, n_sequences=2) as engine:
        whole = bits(fed_whole(engine, tokens)[-1:])
        engine.forward([Run(tokens[:40], 0, BLOCKS, 0, state_out=0)])
        wrong = [*tokens[40:42], 5, 6, 7]
        engine.forward([Run(wrong, 40, BLOCKS, 0, state_in=0, state_out=1)])
        for state_out in (1, 2, 0):
            run = Run(tokens[40:], 40, BLOCKS, 1, state_in=0, state_out=state_out)
            assert last_logits(engine, [run]) == whole, state_out


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.architecture)
def test_states_inside_a_prompt_are_kept_by_runs_that_continue(
    tiny_model_path: TinyModelPath, spec: TinySpec
) -> None:
    tokens = random_tokens(2, N_TOKENS)
    with open_engine(tiny_model_path, spec, n_sequences=2) as engine:
        whole = bits(fed_whole(engine, tokens)[-1:])
        cuts = ((0, 32, 0, 0), (32, 64, 0, 1), (64, 65, 1, 2), (65, 70, 2, 2))
        runs = [Run(tokens[a:b], a, BLOCKS, int(b == 70), old, new) for a, b, old, new in cuts]
        assert last_logits(engine, runs) == whole
        for begin, state in ((32, 0), (64, 1)):
            run = Run(tokens[begin:], begin, BLOCKS, 1, state_in=state, state_out=3)
            assert last_logits(engine, [run]) == whole, begin


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.architecture)
def test_sequences_begin_with_the_same_state_in_one_step(
    tiny_model_path: TinyModelPath, spec: TinySpec
) -> None:
    tokens, other = random_tokens(3, N_TOKENS), random_tokens(4, 6)
    with open_engine(tiny_model_path, spec, n_sequences=3) as engine:
        engine.forward([Run(tokens[:64], 0, BLOCKS, 0, state_out=0)])
        alone = [
            last_logits(engine, [Run(tail, 64, (0, 1, 3), 1, state_in=0, state_out=5)])
            for tail in (tokens[64:], other)
        ]
        together = [
            Run(tokens[64:], 64, (0, 1, 3), 1, state_in=0, state_out=1),
            Run(other, 64, (0, 1, 4), 1, state_in=0, state_out=2),
        ]
        assert last_logits(engine, together, 2) == b"".join(alone)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.architecture)
def test_a_state_that_was_read_goes_on_in_another_slot(
    tiny_model_path: TinyModelPath, spec: TinySpec
) -> None:
    tokens = random_tokens(6, N_TOKENS)
    with open_engine(tiny_model_path, spec, n_sequences=2) as engine:
        engine.forward([Run(tokens[:64], 0, BLOCKS, 0, state_out=0)])
        kept = engine.state_read(0)
        whole = last_logits(engine, [Run(tokens[64:], 64, BLOCKS, 1, state_in=0, state_out=0)])
        assert engine.state_read(0) != kept
        engine.state_write(3, kept)
        assert engine.state_read(3) == kept
        run = Run(tokens[64:], 64, BLOCKS, 1, state_in=3, state_out=1)
        assert last_logits(engine, [run]) == whole
        with pytest.raises(EngineError, match="state is 4, must be below 4"):
            engine.state_read(4)
        with pytest.raises(EngineError, match=f"n_bytes is 1, a state has {len(kept)}"):
            engine.state_write(0, b"x")


def test_wrong_states_are_refused(tiny_model_path: TinyModelPath) -> None:
    tokens, blocks, others = random_tokens(5, 8), (0,), (1,)
    good = Run(tokens, 0, blocks, 1, state_out=0)
    cases = [
        ([Run(tokens, 0, blocks, 1, state_out=4)], "run 0: state_out is 4, must be below 4"),
        ([Run(tokens, 8, blocks, 1, state_in=9)], "run 0: state_in is 9, must be below 4"),
        (
            [good, Run(tokens, 0, others, 1, state_out=0)],
            "run 1: state 0 is written and named twice in one step",
        ),
        (
            [good, Run(tokens, 8, others, 1, state_in=0, state_out=1)],
            "run 1: state 0 is written and named twice in one step",
        ),
        (
            [good, Run(tokens, 8, blocks, 1, state_in=1, state_out=2)],
            "run 1: begins with state 1, the run it continues leaves 0",
        ),
    ]
    with open_engine(tiny_model_path, SPECS[0], n_sequences=2) as engine:
        for runs, message in cases:
            with pytest.raises(EngineError) as caught:
                engine.forward(runs)
            assert caught.value.message == message
        assert last_logits(engine, [good]) == bits(fed_whole(engine, tokens)[-1:])
