"""Each format of tool calls: what models write in it, read whole and in pieces cut anywhere."""

import random
from itertools import pairwise

import pytest

from llamad.text.tools import formats
from llamad.text.tools.call import Call, Tool, Tools, arguments_text
from llamad.text.tools.formats import FORMATS, ToolFormat, find_format
from llamad.text.tools.splitter import CallSplitter, Part

SCHEMA = {
    "type": "object",
    "properties": {
        "room": {"type": "string"},
        "level": {"type": "integer"},
        "code": {"type": "string"},
    },
}
TOOLS = Tools([Tool("set_lamp", "Set a lamp", SCHEMA), Tool("now")])

PLAIN = Call("set_lamp", {"room": "Küche", "level": 3})
NOW = Call("now", {})
HARD = Call(
    "set_lamp",
    {
        "room": 'Küche "<x>" \\ </b> {} [1] \n\t\' 🙂 ｜',
        "level": -3,
        "share": 0.25,
        "on": True,
        "none": None,
        "tags": ["a", {"b": [1, "}"]}],
        "empty": {},
    },
)
CODE = Call("set_lamp", {"code": "def f(x):\n    return {'a': [x]}  # }])>`\n" * 20})


def split(row: ToolFormat, pieces: list[str], opened: str = "") -> list[Part]:
    """Return texts as one and calls without ids."""
    splitter = CallSplitter(row, TOOLS, opened)
    parts = [part for piece in pieces for part in splitter.push(piece)] + splitter.flush()
    result: list[Part] = []
    for part in parts:
        assert part != ""
        if isinstance(part, str) and result and isinstance(result[-1], str):
            result[-1] += part
        else:
            result.append(part if isinstance(part, str) else Call(part.name, part.arguments))
    return result


def check(row: ToolFormat, text: str, expected: list[Part], opened: str = "") -> None:
    """Read the text whole, by characters, and in random pieces."""
    assert split(row, [text], opened) == expected
    assert split(row, list(text), opened) == expected
    rng = random.Random(text)
    for _ in range(8):
        n_cuts = rng.randint(1, 9)
        cuts = [0, *sorted(rng.choices(range(len(text) + 1), k=n_cuts)), len(text)]
        pieces = [text[a:b] for a, b in pairwise(cuts)]
        assert split(row, pieces, opened) == expected


WHOLE = (formats.LLAMA_3,)  # an answer is a call and nothing else, or none
MARKED = [row for row in FORMATS if row not in WHOLE]
every_format = pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)
every_marked = pytest.mark.parametrize("row", MARKED, ids=lambda row: row.name)


@every_format
@pytest.mark.parametrize(
    "calls",
    [[PLAIN], [NOW], [HARD], [CODE], [PLAIN, NOW], [HARD, PLAIN, HARD]],
    ids=["one", "without arguments", "hard", "long", "two", "three"],
)
def test_what_a_format_writes_is_read_back(row: ToolFormat, calls: list[Call]) -> None:
    check(row, row.write(calls), [*calls])


@every_format
@pytest.mark.parametrize(
    "text",
    [
        *("Hello, world!", "  two\n\nlines \n", " ", "<tool> [TOOL] {x} >> 3", "é🙂｜<｜"),
        *("{not json", '{"name": "other", "parameters": {}}', "[1, 2]", '"now"', "{}"),
        *("```python\nprint({1})\n```", "`a`", "a < b > c", "<tool_cal", "[TOOL_CALL"),
    ],
)
def test_text_stays_text(row: ToolFormat, text: str) -> None:
    check(row, text, [text])


@every_marked
def test_text_around_calls_is_kept(row: ToolFormat) -> None:
    check(row, f"I switch.\n\n{row.write([PLAIN])}", ["I switch.", PLAIN])
    check(row, f"{row.write([PLAIN, NOW])}\n\nDone: {{", [PLAIN, NOW, "Done: {"])
    between = f"a {row.write([PLAIN])}\n b \n{row.write([HARD])} c"
    check(row, between, ["a", PLAIN, "b", HARD, "c"])


@every_marked
def test_half_a_call_is_text(row: ToolFormat) -> None:
    whole = row.write([HARD])
    for share in (0.1, 0.3, 0.5, 0.7):
        half = whole[: int(len(whole) * share)].rstrip()
        check(row, half, [half])
        check(row, f"so: {half}", [f"so: {half}"])


@every_marked
def test_a_call_behind_a_broken_one_is_read(row: ToolFormat) -> None:
    mark = row.readers[0][0]
    check(row, f"{mark} oops! {row.write([PLAIN])}", [f"{mark} oops!", PLAIN])


def test_a_broken_llama_call_is_text() -> None:
    half = '{"name": "set_lamp", "parameters": {"room": '
    check(formats.LLAMA_3, half, [half])


def test_a_call_of_capital_letters_names_the_tool() -> None:
    check(formats.HERMES, '<tool_call>{"name": "Set_Lamp"}</tool_call>', [Call("set_lamp", {})])


def test_many_broken_marks_are_read_in_a_bounded_time() -> None:
    text = '<tool_call>{"' * 5000
    assert split(formats.HERMES, [text]) == [text]


LIVING = {"room": "living"}

READ: list[tuple[ToolFormat, str, list[Part]]] = [
    (
        formats.HERMES,
        '<tool_call>{"name":"set_lamp","arguments":"{\\"room\\": \\"living\\"}"}</tool_call>',
        [Call("set_lamp", LIVING)],
    ),
    (
        formats.HERMES,
        '<tool_call>\n{"arguments": {"room": "a\nb"}, "name": "set_lamp"}\n</tool_call>',
        [Call("set_lamp", {"room": "a\nb"})],
    ),
    (formats.HERMES, '<tool_call>\n{"name": "now"}', [NOW]),  # its end is the answer's
    (formats.HERMES, '<tool_call>{"name": "now"}\n</tool_ca', [NOW, "</tool_ca"]),
    (formats.HERMES, '<tool_call>[{"name": "now"}, {"name": "now"}]</tool_call>', [NOW, NOW]),
    (
        formats.HERMES,  # the example of our own instruction, repeated
        '<tool_call>{"name": "function name", "arguments": {}}</tool_call>',
        ['<tool_call>{"name": "function name", "arguments": {}}</tool_call>'],
    ),
    (formats.HERMES, '<tool_call>{"name": 3}</tool_call>', ['<tool_call>{"name": 3}</tool_call>']),
    (
        formats.HERMES,
        '<tool_call>{"name": "now", "arguments": [1]}</tool_call>',
        ['<tool_call>{"name": "now", "arguments": [1]}</tool_call>'],
    ),
    (
        formats.HERMES,
        '<tool_call>{"name": "now", "arguments": {"a": NaN}}</tool_call>',
        ['<tool_call>{"name": "now", "arguments": {"a": NaN}}</tool_call>'],
    ),
    (
        formats.HERMES,
        '<tool_call>{"name": "now", "arguments": {"a": "\\ud800"}}</tool_call>',
        ['<tool_call>{"name": "now", "arguments": {"a": "\\ud800"}}</tool_call>'],
    ),
    (
        formats.HERMES,
        '<tool_call>{"name": "now", "arguments": {"a": 1e999}}</tool_call>',
        ['<tool_call>{"name": "now", "arguments": {"a": 1e999}}</tool_call>'],
    ),
    (
        formats.HERMES,
        '<tool_call>{"name": "unknown_one"}</tool_call>',
        [Call("unknown_one", {})],
    ),
    (
        formats.QWEN_CODER,
        "<tool_call>\n<function=set_lamp>\n<parameter=room>\n7\n</parameter>\n"
        "<parameter=level>\n7\n</parameter>\n<parameter=other>\nTrue\n</parameter>\n"
        "</function>\n</tool_call>",
        [Call("set_lamp", {"room": "7", "level": 7, "other": True})],
    ),
    (
        formats.QWEN_CODER,  # without the outer tag, as Qwen3-Coder's smaller models do
        "<function=set_lamp>\n<parameter=code>\n<p>\n  </p>\n\n</parameter>\n</function>",
        [Call("set_lamp", {"code": "<p>\n  </p>\n"})],
    ),
    (formats.QWEN_CODER, '<tool_call>{"name": "now"}</tool_call>', [NOW]),
    (formats.QWEN_CODER, "<tool_call><function=now></function></tool_call>", [NOW]),
    (formats.QWEN_CODER, "<function=now>x</function>", ["<function=now>x</function>"]),
    (formats.FUNCTIONARY_1, "<function=now>{}</function>", [NOW]),
    (formats.FUNCTIONARY_1, "<function=a b>{}</function>", ["<function=a b>{}</function>"]),
    (formats.MISTRAL, '[TOOL_CALLS] [{"name": "now", "arguments": {}}]', [NOW]),
    (
        formats.MISTRAL,
        '[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "a23456789"}, {"name": "now"}]',
        [NOW, NOW],
    ),
    (formats.MISTRAL, '[TOOL_CALLS]now[CALL_ID]a23456789[ARGS]{"a": 1}', [Call("now", {"a": 1})]),
    (formats.MISTRAL, "[TOOL_CALLS]now{}", [NOW]),
    (formats.MISTRAL, "[TOOL_CALLS]now[ARGS]3", ["[TOOL_CALLS]now[ARGS]3"]),
    (formats.PHI_4, 'functools[{"name": "now", "arguments": {}}]', [NOW]),
    (formats.PHI_4, "functools is a module", ["functools is a module"]),
    (formats.PHI_4, '<|tool_call|>[{"name": "now"}]', [NOW]),
    (formats.PHI_4, "<|tool_call|>[]<|/tool_call|>", ["<|tool_call|>[]<|/tool_call|>"]),
    (formats.GRANITE_3, '<tool_call>[{"name": "now"}]', [NOW]),
    (formats.GRANITE_3, '<|tool_call|> {"name": "now", "arguments": {}}', [NOW]),
    (
        formats.LFM2,
        "<|tool_call_start|>[set_lamp(room='a', level=-1.5), now()]<|tool_call_end|>ok",
        [Call("set_lamp", {"room": "a", "level": -1.5}), NOW, "ok"],
    ),
    (formats.LFM2, '<|tool_call_start|>[{"name": "now"}]<|tool_call_end|>', [NOW]),
    (
        formats.LFM2,
        "<|tool_call_start|>[set_lamp(on=true, off=null, d={'a': (1, 2)})]<|tool_call_end|>",
        [Call("set_lamp", {"on": True, "off": None, "d": {"a": [1, 2]}})],
    ),
    (
        formats.LFM2,
        '<|tool_call_start|>[now(a="<|tool_call_end|>")]<|tool_call_end|>',
        [Call("now", {"a": "<|tool_call_end|>"})],
    ),
    (
        formats.LFM2,
        "<|tool_call_start|>[now(1)]<|tool_call_end|>",
        ["<|tool_call_start|>[now(1)]<|tool_call_end|>"],
    ),
    (
        formats.LFM2,
        "<|tool_call_start|>[now(a=open('x'))]<|tool_call_end|>",
        ["<|tool_call_start|>[now(a=open('x'))]<|tool_call_end|>"],
    ),
    (
        formats.LFM2,
        "<|tool_call_start|>[now(**{'a': 1})]<|tool_call_end|>",
        ["<|tool_call_start|>[now(**{'a': 1})]<|tool_call_end|>"],
    ),
    (
        formats.GEMMA_4,
        '<|tool_call>call:set_lamp{ room : <|"|>a,}<|"|> , level:7, on:yes }<tool_call|>',
        [Call("set_lamp", {"room": "a,}", "level": 7, "on": "yes"})],
    ),
    (
        formats.GEMMA_4,
        '<|tool_call>call:now{<|"|>a b<|"|>:{x:[1,<|"|>y<|"|>,null]}}<tool_call|>',
        [Call("now", {"a b": {"x": [1, "y", None]}})],
    ),
    (formats.GEMMA_4, '<|tool_call>call:now{a:"b}"}<tool_call|>', [Call("now", {"a": "b}"})]),
    (formats.GEMMA_4, "<|tool_call>call now{}<tool_call|>", ["<|tool_call>call now{}<tool_call|>"]),
    (formats.GEMMA_4, "<|tool_call>call:now{]", ["<|tool_call>call:now{]"]),
    (
        formats.FUNCTION_GEMMA,
        "<start_function_call>call:set_lamp{room:<escape>living<escape>}<end_function_call>",
        [Call("set_lamp", LIVING)],
    ),
    (
        formats.DEEPSEEK,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>set_lamp<｜tool▁sep｜>"
        '{"room": "living"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        [Call("set_lamp", LIVING)],
    ),
    (
        formats.DEEPSEEK,
        "<｜tool▁calls▁begin｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>set_lamp\n"
        '```json\n{\n  "room": "living"\n}\n```\n<｜tool▁call▁end｜>\n<｜tool▁calls▁end｜>\n',
        [Call("set_lamp", LIVING)],
    ),
    (formats.DEEPSEEK, "<｜tool▁calls▁begin｜>none", ["<｜tool▁calls▁begin｜>none"]),
    (
        formats.HARMONY,
        ' to=functions.set_lamp<|channel|>commentary json<|message|>{"room": "living"}<|call|>',
        [Call("set_lamp", LIVING)],
    ),
    (formats.LLAMA_3, '<|python_tag|>{"name": "now", "parameters": {}}', [NOW]),
    (formats.LLAMA_3, '{"name": "now", "parameters": null}', [NOW]),
    (formats.LLAMA_3, '{"type": "function", "name": "now", "parameters": {}}', [NOW]),
    (formats.LLAMA_3, ' \n{"name": "now", "parameters": {}} ', [NOW]),
    (
        formats.LLAMA_3,
        '{"name": "now", "parameters": {}} is it',
        ['{"name": "now", "parameters": {}} is it'],
    ),
    (formats.GENERIC, '```json\n{"name": "now", "arguments": {}}\n```', [NOW]),
    (formats.GENERIC, '```tool_code\n[{"name": "now"}]\n```\n', [NOW]),
    (
        formats.GENERIC,
        '{"function": {"name": "now", "arguments": "{}"}, "type": "function"}',
        [NOW],
    ),
    (formats.GENERIC, '```json\n{"lamp": 1}\n```', ['```json\n{"lamp": 1}\n```']),
    (formats.GENERIC, "```json\n{} and", ["```json\n{} and"]),
]


@pytest.mark.parametrize(("row", "text", "expected"), READ)
def test_what_models_write(row: ToolFormat, text: str, expected: list[Part]) -> None:
    check(row, text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all\nHello.\n", ["Hello.\n"]),
        ('set_lamp\n{"room": "living"}', [Call("set_lamp", LIVING)]),
        (
            'all\nI do.\n>>>set_lamp\n{"room": "living"}>>>now\n{}',
            ["I do.", Call("set_lamp", LIVING), NOW],
        ),
        ("what is this", ["what is this"]),
        ("now\n[1]", ["now\n[1]"]),
    ],
)
def test_functionarys_answer_begins_behind_the_prompts_mark(
    text: str, expected: list[Part]
) -> None:
    check(formats.FUNCTIONARY_2, text, expected, opened=">>>")


def test_an_id_that_the_model_wrote_is_kept() -> None:
    splitter = CallSplitter(formats.MISTRAL, TOOLS)
    (call,) = splitter.push("[TOOL_CALLS]now[CALL_ID]a23456789[ARGS]{}")
    assert isinstance(call, Call)
    assert call.id == "a23456789"


def test_arguments_are_json_whatever_a_model_wrote() -> None:
    assert arguments_text(HARD.arguments).startswith('{"room": "Küche \\"<x>\\" ')


def test_a_row_is_found_by_template_or_vocabulary() -> None:
    assert find_format("{{ '<tool_call>' }}", []) is formats.HERMES
    assert find_format("<tool_call><function=x><parameter=y>", []) is formats.QWEN_CODER
    assert find_format("{{ message.content }}", ["<|tool_call_start|>"]) is formats.LFM2
    assert find_format("{{ message.content }}", ["<tool_call>"]) is formats.GENERIC
