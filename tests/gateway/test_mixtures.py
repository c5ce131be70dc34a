"""Options that meet each other: formats, probabilities, several answers, stop strings, bounds.

Whatever is mixed, an answer fits its format or says that it does not, each of its tokens is told of
once, and each of several answers is that of its seed.
"""

import json
from typing import Any

import pytest

from clients.daemon_process import Daemon
from llamad_client import Client, Queued, Result, TextDelta, TokenLogprob

QUESTION = [{"role": "user", "content": "Name a colour and a number."}]
COLOURS = ["rot", "grün", "青", "🟣"]
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": COLOURS}, "n": {"type": "integer", "minimum": 0}},
    "required": ["colour"],
    "additionalProperties": False,
}
FORMATS: dict[str, Any] = {
    "schema": {"json_schema": SCHEMA},
    "choices": {"choices": [*COLOURS, "rotgrün", " ", "\0"]},
    "regex": {"regex": "^(grün|青){1,3}$"},
    "grammar": {"grammar": 'root ::= "" | "🟣" root'},
}
KINDS = [*FORMATS]
BOUNDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one token": {"max_tokens": 1},
    "few tokens": {"max_tokens": 7},
    "stop inside": {"stop": ["ü", "青", "colour"]},
    "no end": {"ignore_eos": True, "max_tokens": 40},
    "late end": {"min_tokens": 12, "max_tokens": 40},
    "thinking": {"thinking": True, "thinking_budget": 1, "max_tokens": 40},
    "no guesses": {"speculation": False, "max_tokens": 40},
    "mirostat": {"mirostat": 2, "max_tokens": 40},
}


def fits(kind: str, text: str) -> bool:
    match kind:
        case "schema":
            try:
                value = json.loads(text)
            except ValueError:
                return False
            n = value.get("n", 0)
            is_right = value.get("colour") in COLOURS and isinstance(n, int) and n >= 0
            return is_right and {*value} <= {"colour", "n"}
        case "choices":
            return text in FORMATS[kind]["choices"]
        case "regex":
            words = text.replace("grün", "g").replace("青", "g")
            return words in ("g", "gg", "ggg")
    return not text.replace("🟣", "")


def answers_to(
    client: Client, n: int, **options: Any
) -> list[tuple[str, list[TokenLogprob], Result]]:
    """Return text, tokens and end of each answer."""
    completion = client.chat(QUESTION, n=n, **options)
    texts, ends = [""] * n, {}
    tokens: list[list[TokenLogprob]] = [[] for _ in range(n)]
    for event in completion.events():
        if isinstance(event, TextDelta):
            texts[completion.index] += event.text
            assert event.logprob is not None
            tokens[completion.index].append(event.logprob)
        elif isinstance(event, Result):
            ends[completion.index] = event
    return [(texts[i], tokens[i], ends[i]) for i in range(n)]


# Each bound with two formats, each format with several bounds.
PAIRS = [(kind, bound) for i, bound in enumerate(BOUNDS) for kind in (KINDS[i % 4], KINDS[i // 4])]


@pytest.mark.parametrize(("kind", "bound"), sorted({*PAIRS}))
def test_an_answer_fits_or_says_that_it_does_not(
    demo_service: Daemon, kind: str, bound: str
) -> None:
    options: dict[str, Any] = {"response_format": FORMATS[kind], "temperature": 1.5, "logprobs": 1}
    options |= BOUNDS[bound]
    with Client(demo_service.socket) as client:
        several = answers_to(client, 3, seed=4, **options)
        for i, (text, tokens, end) in enumerate(several):
            assert end.format_incomplete or fits(kind, text), text
            assert not end.format_incomplete or end.finish_reason != "stop"
            assert len(tokens) == end.completion_tokens
            told = b"".join(token.piece for token in tokens).decode(errors="replace")
            assert told.startswith(text.rstrip("\ufffd"))  # which half a character ends as
            assert end.seed == 4 + i
        (alone,) = answers_to(client, 1, seed=6, **options)
        assert alone[:2] == several[2][:2]
        left = client.chat(QUESTION, seed=6, resumable_seconds=30, **options)
        queued = next(left.events())
        assert isinstance(queued, Queued)
        left.cancel()
        resumed = [e for e in client.resume(queued.job_id).events() if isinstance(e, TextDelta)]
        assert [event.logprob for event in resumed] == alone[1]
        assert "".join(event.text for event in resumed) == alone[0]
