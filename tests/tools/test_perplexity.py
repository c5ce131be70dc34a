"""``llamad perplexity`` equals what the oracle and the library say of the same tokens."""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pytest

from engine.feeding import feed, random_tokens
from llamad.engine import Model
from llamad.engine.bindings import Engine, EngineModel
from llamad.errors import LlamadError
from llamad_tools.commands.perplexity import add_parser
from llamad_tools.perplexity import measure as perplexity
from llamad_tools.perplexity.scoring import perplexity_of
from reference import engine_rounding, forward, load, log_softmax
from tiny_gguf import TinyModelPath, TinySpec

TEXT = "the hinterland rests in the warm water of that one winter\n" * 3


def command(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    return parser.parse_args(["perplexity", *arguments])


def nll_of(logprobs: np.ndarray, tokens: list[int]) -> float:
    """logprobs: (n_tokens, vocab_size) -> the mean over all tokens but the first."""
    return -float(np.mean([logprobs[i, token] for i, token in enumerate(tokens[1:])]))


def test_json_equals_the_librarys_logits(
    tiny_model_path: TinyModelPath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_path, text_path = tiny_model_path(TinySpec(weight_type="Q8_0")), tmp_path / "text"
    text_path.write_text(TEXT, encoding="utf-8")
    options = command(str(model_path), str(text_path), "--json")
    assert options.run(options) == 0
    result = json.loads(capsys.readouterr().out)
    model = Model(model_path)
    tokens = model.tokenize(TEXT)
    expected = nll_of(log_softmax(model.logits(tokens)), tokens)
    model.close()
    assert result["tokens"] == len(tokens)
    assert result["scored_tokens"] == len(tokens) - 1
    assert result["nll_per_token"] == pytest.approx(expected, rel=1e-6)
    assert result["perplexity"] == pytest.approx(math.exp(expected), rel=1e-6)


def test_equals_the_oracle(tiny_model_path: TinyModelPath) -> None:
    path, tokens = tiny_model_path(TinySpec()), random_tokens(1, 80)
    expected = nll_of(log_softmax(forward(load(path), tokens, engine_rounding("f16"))), tokens)
    with EngineModel(path) as model:
        result = perplexity.measure(model, tokens, n_threads=2, n_ctx=512)
    assert result.nll_per_token == pytest.approx(expected, rel=1e-4)


def test_a_long_text_is_scored_in_windows(tiny_model_path: TinyModelPath) -> None:
    tokens = random_tokens(2, 101)  # windows of 40, 40 and 21
    with EngineModel(tiny_model_path(TinySpec())) as model:
        result = perplexity.measure(model, tokens, n_threads=2, n_ctx=40)
        total = 0.0
        with Engine(model, n_threads=2, n_ctx=40, n_batch=40, n_logits=40) as engine:
            for start in (0, 40, 80):
                window = tokens[start : start + 40]
                logprobs = log_softmax(feed(engine, window, chunk=40))
                total += nll_of(logprobs, window) * (len(window) - 1)
    assert result.scored_tokens == 98
    assert result.nll_per_token == pytest.approx(total / 98, rel=1e-6)


@pytest.mark.parametrize("tokens", [[], [5]])
def test_nothing_to_score_is_an_error(tiny_model_path: TinyModelPath, tokens: list[int]) -> None:
    with (
        EngineModel(tiny_model_path(TinySpec())) as model,
        pytest.raises(LlamadError, match="at least 2 tokens"),
    ):
        perplexity.measure(model, tokens, n_threads=1, n_ctx=40)


def test_a_perplexity_beyond_all_numbers_is_an_error() -> None:
    assert perplexity_of(700.0) > 1e300
    with pytest.raises(LlamadError, match=r"710\.0 nats per token"):
        perplexity_of(710.0)


@pytest.mark.parametrize(
    "option", ["--threads=0", "--threads=65", "--ctx-size=-5", "--ctx-size=1", "--ctx-size=9999999"]
)
def test_wrong_options_are_exit_code_2(option: str) -> None:
    with pytest.raises(SystemExit) as caught:
        command("m.gguf", "t.txt", option)
    assert caught.value.code == 2


def test_an_unreadable_text_is_an_error_that_names_it(
    tiny_model_path: TinyModelPath, tmp_path: Path
) -> None:
    model_path = tiny_model_path(TinySpec())
    missing, binary = tmp_path / "missing", tmp_path / "binary"
    binary.write_bytes(b"ab\xff")
    for path, fault in ((missing, "No such file"), (binary, "byte 2 is not UTF-8")):
        options = command(str(model_path), str(path))
        with pytest.raises(LlamadError, match=fault) as caught:
            options.run(options)
        assert str(path) in caught.value.message
