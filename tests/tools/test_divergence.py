"""``llamad perplexity --compare``: against the library's logits of both models."""

import json
import math
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.feeding import random_tokens
from llamad.__main__ import main
from llamad.engine import Model
from llamad.engine.bindings import EngineModel, GgufFile
from llamad.errors import LlamadError
from llamad_tools.perplexity import measure as perplexity
from llamad_tools.perplexity.divergence import measure_divergence
from reference import log_softmax
from tiny_gguf import TinyModelPath, TinySpec

TEXT = "the hinterland rests in the warm water of that one winter\n" * 2
PLAIN = TinySpec(weight_type="F16")
COARSE = TinySpec(weight_type="Q4_0")


def test_json_equals_the_librarys_logits(
    tiny_model_path: TinyModelPath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text_path = tmp_path / "text"
    text_path.write_text(TEXT, encoding="utf-8")
    coarse, plain = tiny_model_path(COARSE), tiny_model_path(PLAIN)
    arguments = ["perplexity", str(coarse), str(text_path), "--compare", str(plain), "--json"]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    with Model(coarse) as model, Model(plain) as reference:
        tokens = model.tokenize(TEXT)
        log_q = log_softmax(model.logits(tokens).astype(np.float64))[:-1]
        log_p = log_softmax(reference.logits(tokens).astype(np.float64))[:-1]
    kl = np.sum(np.exp(log_p) * (log_p - log_q), axis=1)
    rows, following = np.arange(len(tokens) - 1), tokens[1:]
    nll, reference_nll = -log_q[rows, following].mean(), -log_p[rows, following].mean()
    assert result["nll_per_token"] == pytest.approx(nll, rel=1e-6)
    assert result["reference_nll_per_token"] == pytest.approx(reference_nll, rel=1e-6)
    assert result["nll_difference"] == pytest.approx(nll - reference_nll, abs=1e-6)
    assert result["perplexity"] == pytest.approx(np.exp(nll), rel=1e-6)
    assert result["mean_kl"] == pytest.approx(kl.mean(), rel=1e-4)
    assert result["max_kl"] == pytest.approx(kl.max(), rel=1e-4)
    assert result["same_top"] == pytest.approx(np.mean(log_p.argmax(1) == log_q.argmax(1)))
    assert (result["tokens"], result["scored_tokens"]) == (len(tokens), len(tokens) - 1)
    assert result["mean_kl"] > 0


def test_a_model_does_not_differ_from_itself(tiny_model_path: TinyModelPath) -> None:
    path, tokens = tiny_model_path(COARSE), random_tokens(3, 90)
    with EngineModel(path) as model, EngineModel(path) as same:
        result = measure_divergence(model, same, tokens, n_threads=2, n_ctx=40)
        alone = perplexity.measure(model, tokens, n_threads=2, n_ctx=40)
    assert (result.nll_difference, result.mean_kl, result.max_kl) == (0.0, 0.0, 0.0)
    assert result.same_top == 1.0
    assert result.scored_tokens == alone.scored_tokens == 87  # windows of 40, 40 and 10
    assert result.nll_per_token == pytest.approx(alone.nll_per_token, rel=1e-12)


def test_the_window_fits_both_models(
    tiny_model_path: TinyModelPath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text_path = tmp_path / "text"
    text_path.write_text(TEXT, encoding="utf-8")
    short = str(tiny_model_path(replace(PLAIN, n_ctx_train=16)))
    long = str(tiny_model_path(PLAIN))
    scored = set()
    for one, other in ((short, long), (long, short)):
        assert main(["perplexity", one, str(text_path), "--compare", other, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        scored.add(result["tokens"] - result["scored_tokens"])
    assert scored == {-(-result["tokens"] // 16)}  # one token of each window is not scored


def test_the_text_says_which_is_the_reference(
    tiny_model_path: TinyModelPath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text_path = tmp_path / "text"
    text_path.write_text(TEXT, encoding="utf-8")
    files = [str(tiny_model_path(COARSE)), str(text_path), "--compare"]
    assert main(["perplexity", *files, str(tiny_model_path(PLAIN))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ", reference " in lines[0]
    assert lines[2].startswith("KL divergence from the reference: mean ")
    assert lines[3].startswith("equal top tokens ")


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        (replace(PLAIN, vocab_size=320), "has 300 tokens, the reference 320"),
        (
            replace(PLAIN, metadata={"tokenizer.ggml.model": "gpt2"}),
            "has 300 tokens, the reference as many others",
        ),
    ],
)
def test_another_vocabulary_is_refused(
    tiny_model_path: TinyModelPath, other: TinySpec, fault: str
) -> None:
    with (
        EngineModel(tiny_model_path(PLAIN)) as model,
        EngineModel(tiny_model_path(other)) as reference,
        pytest.raises(LlamadError, match=fault) as caught,
    ):
        measure_divergence(model, reference, [1, 2, 3], n_threads=1, n_ctx=40)
    assert caught.value.reason == "VOCABULARY_MISMATCH"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("broken", [0, 1], ids=["model", "reference"])
def test_weights_that_are_no_numbers_are_an_error(
    tiny_model_path: TinyModelPath, tmp_path: Path, broken: int
) -> None:
    path = tmp_path / "broken.gguf"
    content = bytearray(tiny_model_path(PLAIN).read_bytes())
    with GgufFile(tiny_model_path(PLAIN)) as file:
        [norm] = [tensor for tensor in file.tensors() if tensor.name == "output_norm.weight"]
    content[norm.file_offset : norm.file_offset + 4] = struct.pack("<f", math.nan)
    path.write_bytes(content)
    paths = [path, tiny_model_path(PLAIN)]
    with (
        EngineModel(paths[broken]) as model,
        EngineModel(paths[1 - broken]) as reference,
        pytest.raises(LlamadError) as caught,
    ):
        measure_divergence(model, reference, [1, 2, 3], n_threads=1, n_ctx=40)
    assert caught.value.reason == "MODEL_NOT_FINITE"


def test_nothing_to_score_is_an_error(tiny_model_path: TinyModelPath) -> None:
    with (
        EngineModel(tiny_model_path(PLAIN)) as model,
        pytest.raises(LlamadError, match="at least 2 tokens"),
    ):
        measure_divergence(model, model, [5], n_threads=1, n_ctx=40)
