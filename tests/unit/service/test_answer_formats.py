"""Formats of answers in a vocabulary with channels: what stands in front of the answer."""

import pytest

from llamad.engine.bindings import Constraint, EngineError
from llamad.errors import LlamadError
from llamad.jobs.request import ChatMessage, GenerationRequest, Thinking, Tool, ToolUse
from llamad.memory.formats import FormatCaches, format_caches
from llamad.sampling.response_format import FormatKind, ResponseFormat
from llamad.service.answer_formats import AnswerFormats
from llamad.text import tokenizer_from_metadata
from llamad.text.channels import FINAL_HEAD, MARKS, find_channels
from llamad.text.tools.formats import HARMONY
from unit.text.vocabularies import CONTROL, bpe_metadata

TOKENIZER = tokenizer_from_metadata(bpe_metadata(special=[(name, CONTROL) for name in MARKS]))
CHANNELS = find_channels(
    TOKENIZER.vocabulary.tokens,
    TOKENIZER.vocabulary.ids_of(CONTROL),  # type: ignore[arg-type]
)
PROMPT = "<|start|>user<|message|>hi<|end|><|start|>assistant"
THOUGHT = "<|channel|>analysis<|message|>Hm, to=functions.now<|end|><|start|>assistant"
CHOICES = ResponseFormat(FormatKind.CHOICES, choices=("yes", "no"))
NOW = (Tool("now"),)
CALL = "<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}"


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_bos=False, parse_special=True)


def takes(request: GenerationRequest, answer: str, prompt: str = PROMPT) -> bool:
    """Whether an answer may be so, up to its end."""
    assert CHANNELS is not None
    formats = AnswerFormats(TOKENIZER, CHANNELS, lambda: HARMONY, format_caches(None, 4))
    grammar = formats.compile(request, ids(prompt), is_chat=True)
    constraint: Constraint | None = None
    try:
        constraint = formats.constraint(grammar, ids(answer))
        constraint.catch_up()
        return constraint.accepts
    except EngineError:
        return False
    finally:
        if constraint is not None:
            constraint.close()
        formats.close()


def chat(**more: object) -> GenerationRequest:
    return GenerationRequest(
        messages=(ChatMessage("user", "hi"),),
        thinking=Thinking(),
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        (f"{FINAL_HEAD}yes", True),
        (f"{THOUGHT}{FINAL_HEAD}no", True),
        (f"{THOUGHT}{THOUGHT}{FINAL_HEAD}no", True),
        ("yes", False),
        (f"{THOUGHT}yes", False),
        (f"{FINAL_HEAD}maybe", False),
        (f"{FINAL_HEAD}ye", False),
        (THOUGHT, False),
    ],
)
def test_a_format_holds_on_the_final_channel(answer: str, taken: bool) -> None:
    assert takes(chat(response_format=CHOICES), answer) == taken


def test_behind_a_begun_answer_it_holds_at_once() -> None:
    request = chat(response_format=CHOICES)
    assert takes(request, "yes", PROMPT + FINAL_HEAD)
    assert not takes(request, f"{FINAL_HEAD}yes", PROMPT + FINAL_HEAD)


def test_a_required_call_stands_behind_thoughts() -> None:
    request = chat(tools=NOW, tool_use=ToolUse.REQUIRED)
    assert takes(request, THOUGHT + CALL)
    assert takes(request, CALL)
    assert not takes(request, f"{THOUGHT}{FINAL_HEAD}no")


def test_a_thought_that_names_a_tool_begins_no_call() -> None:
    """With ``auto``: it may say how calls are written, and go on as it likes."""
    request = chat(tools=NOW)
    assert takes(request, f"{THOUGHT}{FINAL_HEAD}No need.")
    assert takes(request, THOUGHT + CALL)
    assert not takes(request, THOUGHT + CALL.replace("now", "then"))


def test_with_tools_and_a_format_an_answer_is_either() -> None:
    request = chat(tools=NOW, response_format=CHOICES)
    assert takes(request, THOUGHT + CALL)
    assert takes(request, f"{THOUGHT}{FINAL_HEAD}no")
    assert not takes(request, f"{FINAL_HEAD}maybe")


def test_a_format_that_memory_has_no_room_for_is_refused_by_name() -> None:
    assert CHANNELS is not None
    formats = AnswerFormats(TOKENIZER, CHANNELS, lambda: HARMONY, format_caches(0, 4))
    text = '{"enum": ["' + "x" * 100_000 + '"]}'
    wanted = ResponseFormat(FormatKind.JSON_SCHEMA, text)
    with pytest.raises(LlamadError, match="json_schema: the compiled format takes") as one:
        formats.compile(chat(response_format=wanted), ids(PROMPT), is_chat=True)
    assert one.value.reason == "INVALID_SCHEMA"
    tool = Tool("f", parameters='{"properties": {"a": ' + text + "}}")
    with pytest.raises(LlamadError, match="tools: the compiled format takes"):
        formats.compile(chat(tools=(tool,)), ids(PROMPT), is_chat=True)
    formats.close()


def test_grammars_that_answers_use_count_among_those_that_are_kept() -> None:
    assert CHANNELS is not None
    caches = FormatCaches(grammar=1 << 20, grammars=12_000, masks=1 << 20, states=1 << 20)
    formats = AnswerFormats(TOKENIZER, CHANNELS, lambda: HARMONY, caches)
    requests = [
        chat(response_format=ResponseFormat(FormatKind.CHOICES, choices=(f"{i}" * 60,)))
        for i in range(5)
    ]
    used = formats.compile(requests[0], ids(PROMPT), is_chat=True)
    n_kept = []
    for request in requests[1:]:
        formats.compile(request, ids(PROMPT), is_chat=True)
        found = [formats.find(one, ids(PROMPT), is_chat=True) for one in requests]
        n_kept.append(sum(one is not None for one in found))
    assert used.n_bytes > 12_000 / 5, "else five fit"
    assert n_kept[-1] * used.n_bytes <= 12_000
    assert formats.find(requests[0], ids(PROMPT), is_chat=True) is None, "in use, not kept"
    formats.close()
