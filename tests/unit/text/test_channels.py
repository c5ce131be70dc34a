"""gpt-oss's channels: thoughts, calls and the answer apart, however the text arrives."""

import random
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from llamad.schedule.generation import CompletionText
from llamad.text.channels import ANALYSIS_HEAD, FINAL_HEAD, MARKS, ChannelMarks, find_channels
from llamad.text.thinking import CallChoice
from llamad.text.tools.call import Call, Tool, Tools
from llamad.text.tools.formats import HARMONY
from llamad.text.tools.splitter import CallSplitter

CONTROLS = dict(enumerate(MARKS, start=1))
BY_NAME = {name: token for token, name in CONTROLS.items()}
MODEL = ChannelMarks(CONTROLS)
PROMPT = "<|end|><|start|>assistant"
TOOLS = Tools([Tool("set_lamp", "", {"properties": {"room": {"type": "string"}}}), Tool("now")])
ANALYSIS = "<|channel|>analysis<|message|>"
NEXT = "<|end|><|start|>assistant"
COMMENTARY = "<|channel|>commentary<|message|>"
LAMP = Call("set_lamp", {"room": "kitchen"})

Token = int | str  # a control token, or text


class Texts:
    """A detokenizer of tokens that are texts."""

    def push(self, token: Token) -> str:
        return token if isinstance(token, str) else ""

    def flush(self) -> str:
        return ""


def tokens_of(text: str) -> list[Token]:
    """Return a text with its marks as control tokens; those in ⟨⟩ are plain text."""
    parts = re.split(r"(<\|\w+\|>)", text)
    return [BY_NAME.get(part, part.replace("⟨", "<").replace("⟩", ">")) for part in parts if part]


def split_at(tokens: Iterable[Token], rng: random.Random, share: float) -> list[Token]:
    """Return the tokens with their texts cut at random."""
    result: list[Token] = []
    for token in tokens:
        if isinstance(token, int):
            result.append(token)
            continue
        begin = 0
        for place in range(1, len(token) + 1):
            if place == len(token) or rng.random() < share:
                result.append(token[begin:place])
                begin = place
    return result


def cut(
    tokens: Sequence[Token], *, tail: str = PROMPT, tools: bool = True
) -> tuple[str, str, list[Call]]:
    """Return thoughts, answer and calls."""
    controls = {BY_NAME[name]: name for name in ("<|channel|>", "<|message|>", "<|call|>")}
    calls = CallSplitter(HARMONY, TOOLS, "", controls) if tools else None
    text: Any = CompletionText(Texts(), (), MODEL.splitter(tail), calls)
    parts = [part for token in tokens for part in text.push(token)[0]]
    parts += text.flush()[0]
    assert all(isinstance(part, Call) or part[0] for part in parts)
    thoughts = "".join(p[0] for p in parts if not isinstance(p, Call) and p[1])
    answer = "".join(p[0] for p in parts if not isinstance(p, Call) and not p[1])
    return thoughts, answer, [part for part in parts if isinstance(part, Call)]


JSON = '{"room": "kitchen"}'
# What comes, and the thoughts, the answer and the calls in it.
CASES: tuple[tuple[str, str, str, list[Call]], ...] = (
    (f"{ANALYSIS}Hm.\n{NEXT}<|channel|>final<|message|>Yes.\n", "Hm.", "Yes.\n", []),
    ("<|channel|>final<|message|>Yes", "", "Yes", []),
    (f"{ANALYSIS}{NEXT}<|channel|>final<|message|>Yes", "", "Yes", []),
    (f"{ANALYSIS} a \n{NEXT}{ANALYSIS}b{NEXT}<|channel|>final<|message|>c", "a\n\nb", "c", []),
    ("<|channel|>final <|constrain|>json<|message|>{}", "", "{}", []),
    (f"{ANALYSIS}cut <", "cut <", "", []),
    (
        f"{ANALYSIS}a ⟨|end|⟩ b{NEXT}<|channel|>final<|message|>⟨|end|⟩",
        "a <|end|> b",
        "<|end|>",
        [],
    ),
    (  # a plan, then a call
        f"{ANALYSIS}Hm{NEXT}{COMMENTARY}I look.{NEXT}<|channel|>commentary to=functions.set_lamp"
        f" <|constrain|>json<|message|>{JSON}<|call|>",
        "Hm\n\nI look.",
        "",
        [LAMP],
    ),
    (  # the recipient in front of the channel, no mark of the type, no end
        f"{ANALYSIS}Hm{NEXT} to=functions.set_lamp<|channel|>commentary json<|message|>{JSON}",
        "Hm",
        "",
        [LAMP],
    ),
    (f"<|channel|>analysis to=functions.set_lamp<|message|>{JSON}<|call|>", "", "", [LAMP]),
    (  # two calls and an answer
        f"<|channel|>commentary to=functions.now<|message|>{{}}<|call|><|start|>assistant"
        f"<|channel|>commentary to=functions.set_lamp<|message|>{JSON}{NEXT}"
        "<|channel|>final<|message|>Done",
        "",
        "Done",
        [Call("now", {}), LAMP],
    ),
    (  # a tool of OpenAI's own
        f"<|channel|>analysis to=browser.search<|message|>{{}}{NEXT}<|channel|>final<|message|>x",
        "{}",
        "x",
        [],
    ),
    ("Plain words, no head", "", "Plain words, no head", []),
    ("a", "", "a", []),
    (f"{ANALYSIS}we say to=functions.now{NEXT}{FINAL_HEAD}x", "we say to=functions.now", "x", []),
    ("<|channel|>ana", "", "", []),
    ("", "", "", []),
)


@pytest.mark.parametrize(("text", "thoughts", "answer", "calls"), CASES)
def test_channels_are_told_apart_however_the_text_is_cut(
    text: str, thoughts: str, answer: str, calls: list[Call]
) -> None:
    tokens = tokens_of(text)
    rng = random.Random(1)
    for share in (0, 1, *[0.3] * 20):
        assert cut(split_at(tokens, rng, share)) == (thoughts, answer, calls)


def test_a_call_of_a_tool_that_nobody_offered_is_text() -> None:
    text = "<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}"
    assert cut(tokens_of(text), tools=False) == ("", text, [])


def test_behind_a_begun_answer_everything_is_answer() -> None:
    assert cut(["Yes ", "and no"], tail=f"{PROMPT}{FINAL_HEAD}Well, ") == ("", "Yes and no", [])
    assert cut(["and more"], tail="words of a long answer that was begun") == ("", "and more", [])


@pytest.mark.parametrize(
    ("so_far", "behind", "with_tools"),
    [
        ("", FINAL_HEAD, ""),
        ("<|channel|>", "final<|message|>", ""),
        ("<|channel|>analysis", f"<|message|>{NEXT}{FINAL_HEAD}", f"<|message|>{NEXT}"),
        (f"{ANALYSIS}Hm", f"{NEXT}{FINAL_HEAD}", NEXT),
        (f"{ANALYSIS}Hm<|end|>", f"{PROMPT.removeprefix('<|end|>')}{FINAL_HEAD}", None),
        (f"{ANALYSIS}Hm<|end|><|start|>", f"assistant{FINAL_HEAD}", None),
        ("<|channel|>commentary", "", ""),
    ],
)
def test_what_ends_a_thought_leads_to_an_answer(
    so_far: str, behind: str, with_tools: str | None
) -> None:
    splitter = MODEL.splitter(PROMPT)
    for token in tokens_of(so_far):
        splitter.push(token if isinstance(token, str) else splitter.control_text(token))
    assert splitter.thinking
    assert splitter.ending(calls=CallChoice.NONE) == behind
    if with_tools is not None:
        assert splitter.ending(calls=CallChoice.POSSIBLE) == with_tools
    if behind:
        said = cut(tokens_of(f"{so_far}{behind}Yes"))
        assert said[1:] == ("Yes", [])


def test_without_a_thought_the_answer_is_begun_unless_tools_may_be_called() -> None:
    assert MODEL.without_thought(PROMPT, told=True, calls=False) == FINAL_HEAD
    assert MODEL.without_thought(PROMPT, told=True, calls=True) == ""
    assert MODEL.without_thought(f"{PROMPT}{FINAL_HEAD}Well", told=True, calls=False) == ""


def test_a_vocabulary_needs_all_marks() -> None:
    names = ["a", *MARKS]
    found = find_channels(names, range(1, len(names)))
    assert found is not None
    assert dict(found.controls) == CONTROLS
    assert find_channels(names[:-4], range(1, len(names) - 4)) is None
    assert find_channels(names, [0]) is None, "marks that are plain text are none"
    assert ANALYSIS_HEAD == ANALYSIS
