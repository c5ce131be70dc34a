"""``llamad bench --draft``: the same answer with it and without, and what is told of it."""

import dataclasses
import json

import pytest

from llamad.__main__ import main
from llamad.engine.drafting import DraftChunk
from llamad_tools import draft_benchmark
from llamad_tools.commands.bench import draft_text
from llamad_tools.draft_benchmark import DraftResult
from tiny_gguf import TinyModelPath, TinySpec

FLAGS = ["-t", "1", "-p", "8", "-n", "24", "--kv-type", "q8_0"]
MODEL = TinySpec(weight_type="Q8_0", n_ctx_train=256)
RESULT = DraftResult(
    draft="small.gguf",
    draft_bytes=120_000_000,
    streamed_bytes=1_000_000_000,
    tokens=64,
    tokens_per_second_alone=0.5,
    tokens_per_second=1.25,
    guessed_tokens=50,
    accepted_tokens=40,
    same_tokens=True,
)


def test_people_read_how_many_times_faster_it_is() -> None:
    assert draft_text(RESULT).splitlines() == [
        "",
        "With small.gguf as a draft, which takes 120.0 MB: 1.25 tokens/s instead of 0.50,",
        "2.50 times; 80 % of 50 guessed tokens right.",
    ]
    none = dataclasses.replace(RESULT, guessed_tokens=0, accepted_tokens=0, same_tokens=False)
    assert draft_text(none).splitlines()[-2:] == [
        "2.50 times; 0 % of 0 guessed tokens right.",
        "The two answers differ, which is a bug.",
    ]


@pytest.mark.parametrize(
    ("draft", "always_right"),
    [
        (dataclasses.replace(MODEL, n_ctx_train=255), True),
        (dataclasses.replace(MODEL, seed=2, n_layers=1), False),
    ],
)
def test_the_answer_is_the_same_whatever_is_guessed(
    draft: TinySpec,
    always_right: bool,
    tiny_model_path: TinyModelPath,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # a tiny draft costs as much as it saves: let it guess all the same
    monkeypatch.setattr(draft_benchmark, "DraftChunk", lambda *fields: DraftChunk(*fields[:4]))
    model, small = tiny_model_path(MODEL), tiny_model_path(draft)
    assert main(["bench", str(model), *FLAGS, "--draft", str(small), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["draft"]
    assert told["same_tokens"]
    assert (told["tokens"], told["draft"]) == (24, small.name)
    assert told["guessed_tokens"] > 10
    assert (told["accepted_tokens"] == told["guessed_tokens"]) == always_right


def test_another_vocabulary_is_refused_by_name(
    tiny_model_path: TinyModelPath, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model_path(MODEL)
    other = tiny_model_path(TinySpec(vocab_size=2000, n_ctx_train=256))
    assert main(["bench", str(model), *FLAGS, "--draft", str(other)]) == 1
    error = capsys.readouterr().err
    assert f"{other.name} has another vocabulary than {model.name}: 2000 tokens" in error
