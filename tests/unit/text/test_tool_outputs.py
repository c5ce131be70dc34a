"""What models write, recorded by format in ``tool_outputs/*.toml``, and what is read of it.

A case of a file: ``text`` as the model wrote it, and ``parts`` as a client is told of it: texts,
thoughts, and calls with their arguments as JSON. Without ``parts`` all of the text is answer.
``opened``: what the prompt ends with; ``stop``: stop strings. A file names the marks of thoughts
(``thinking``), or that its model answers in ``channels``.
"""

import json
import random
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llamad.schedule.generation import CompletionText
from llamad.text.channels import ASSISTANT, MARKS, ChannelMarks
from llamad.text.detokenizer import Detokenizer
from llamad.text.thinking import Splitter, ThinkingMarks
from llamad.text.tools.call import Call, Tool, Tools
from llamad.text.tools.formats import FORMATS
from llamad.text.tools.splitter import CallSplitter

FOLDER = Path(__file__).parent / "tool_outputs"
FILES = {path.stem: tomllib.loads(path.read_text()) for path in sorted(FOLDER.glob("*.toml"))}
LEAST_CASES = 20  # of each format
N_SPLITS = 6

SCHEMA = {"properties": {"room": {"type": "string"}, "code": {"type": "string"}, "level": {}}}
TOOLS = Tools([Tool("set_lamp", "", SCHEMA), Tool("now")])
CONTROLS = dict(enumerate(MARKS))
BY_NAME = {name: token for token, name in CONTROLS.items()}
ROWS = {row.name: row for row in FORMATS}

CASES = [
    pytest.param(name, case, id=f"{name}: {case['name']}")
    for name, file in FILES.items()
    for case in file["case"]
]


class Pieces:
    """A vocabulary of the control tokens, and of the pieces that a text is cut into."""

    adds_space_prefix = False

    def __init__(self) -> None:
        self.pieces = [b""] * len(CONTROLS)

    def piece(self, token: int, special: bool = False) -> bytes:
        return self.pieces[token]

    def tokens(self, text: str, rng: random.Random, share: float, *, controls: bool) -> list[int]:
        """Return the tokens of a text, cut at random; those in ⟨⟩ are plain text."""
        tokens: list[int] = []
        for part in re.split(r"(<\|\w+\|>)", text) if controls else [text]:
            if controls and part in BY_NAME:
                tokens.append(BY_NAME[part])
                continue
            raw, begin = part.replace("⟨", "<").replace("⟩", ">").encode(), 0
            for end in range(1, len(raw) + 1):
                if end == len(raw) or rng.random() < share:
                    tokens.append(len(self.pieces))
                    self.pieces.append(raw[begin:end])
                    begin = end
        return tokens


def thoughts(file: dict[str, Any]) -> Splitter | None:
    """Return what cuts the thoughts of a file's model."""
    if file.get("channels"):
        return ChannelMarks(CONTROLS).splitter(ASSISTANT)
    pair = file.get("thinking")
    return None if pair is None else ThinkingMarks(((pair[0], pair[1]),)).splitter("")


def told(name: str, case: dict[str, Any], rng: random.Random, share: float) -> list[Any]:
    """Return what a client is told of an output, as a file has it."""
    file, pieces = FILES[name], Pieces()
    tokens = pieces.tokens(case["text"], rng, share, controls=bool(file.get("channels")))
    calls = CallSplitter(ROWS[name], TOOLS, case.get("opened", ""))
    detokenizer = Detokenizer(pieces)  # type: ignore[arg-type]
    text = CompletionText(detokenizer, tuple(case.get("stop", ())), thoughts(file), calls)
    parts: list[Any] = []
    for token in tokens:
        new, matched = text.push(token)
        parts += new
        if matched is not None:
            break
    else:
        parts += text.flush()[0]
    return list(joined(parts))


def joined(parts: list[Any]) -> Iterator[Any]:
    """Yield the parts as a file has them, texts that follow each other as one."""
    held, was_thinking = "", False
    for part in [*parts, None]:
        if isinstance(part, tuple) and part[1] is was_thinking:
            held += part[0]
            continue
        if held:
            yield {"thought": held} if was_thinking else held
        held, was_thinking = part if isinstance(part, tuple) else ("", False)
        if isinstance(part, Call):
            yield {"call": part.name, "arguments": part.arguments}


def expected(case: dict[str, Any]) -> list[Any]:
    """Return what a client should be told."""
    parts = case.get("parts", [case["text"]])
    return [
        {**part, "arguments": json.loads(part["arguments"])}
        if isinstance(part, dict) and "call" in part
        else part
        for part in parts
    ]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_an_output_is_read_alike_however_its_bytes_arrive(name: str, case: dict[str, Any]) -> None:
    rng = random.Random(case["text"])
    for share in (0.0, 1.0, *(rng.random() ** 2 for _ in range(N_SPLITS))):
        assert told(name, case, rng, share) == expected(case)


def test_each_format_has_recorded_outputs_enough() -> None:
    counts = {name: len({case["text"] for case in file["case"]}) for name, file in FILES.items()}
    assert counts.keys() == ROWS.keys()
    assert {name: n for name, n in counts.items() if n < LEAST_CASES} == {}
