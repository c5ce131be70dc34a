"""Probabilities of tokens under kept rows, against numpy in double precision."""

import numpy as np
import pytest

from engine.feeding import feed, random_tokens
from engine.test_batch_invariance import open_engine, spec_of
from tiny_gguf import TinyModelPath

ROUNDING = 1e-12  # of a sum of 310 doubles near 1, and of exp and log


@pytest.mark.parametrize("n_likeliest", [0, 1, 20, 310, 1000])
def test_they_are_those_of_the_logits(tiny_model_path: TinyModelPath, n_likeliest: int) -> None:
    tokens = random_tokens(3, 24)
    with open_engine(tiny_model_path, spec_of("Q8_0")) as engine:
        rows = feed(engine, tokens, chunk=len(tokens)).astype(np.float64)
        for k, row in enumerate(rows):
            expected = row - row.max() - np.log(np.exp(row - row.max()).sum())
            (token, logprob), *likeliest = engine.token_probabilities(k, tokens[k], n_likeliest)
            assert token == tokens[k]
            assert abs(logprob - expected[token]) <= ROUNDING
            order = np.argsort(-row, kind="stable")[:n_likeliest]
            assert [entry for entry, _ in likeliest] == order.tolist()
            assert np.abs([p for _, p in likeliest] - expected[order]).max(initial=0) <= ROUNDING


def test_what_is_not_there_is_refused(tiny_model_path: TinyModelPath) -> None:
    with open_engine(tiny_model_path, spec_of("Q8_0")) as engine:
        feed(engine, [1, 2], chunk=2)
        with pytest.raises(IndexError, match="token 310, must be 0 to 309"):
            engine.token_probabilities(0, 310, 1)
        with pytest.raises(IndexError, match="row 2"):
            engine.token_probabilities(2, 1, 1)
        with pytest.raises(ValueError, match="-1 likeliest"):
            engine.token_probabilities(0, 1, -1)
