"""Tools, calls and results in a conversation: what templates are given, and what no text can do."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamad.errors import LlamadError
from llamad.text import ChatTemplate, tokenizer_from_metadata
from llamad.text.tools.call import Tool
from unit.text.vocabularies import CONTROL, bpe_metadata

MARKS = ("<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<|tool_call|>")
TOKENIZER = tokenizer_from_metadata(bpe_metadata(special=[(mark, CONTROL) for mark in MARKS]))

PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}"
)
HERMES = (
    "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ ARGUMENTS }}}\n'
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
)
AS_OBJECT = HERMES.replace("ARGUMENTS", "c.function.arguments | tojson")
AS_TEXT = HERMES.replace("ARGUMENTS", "c.function.arguments + ''")
NO_CONTENT = AS_OBJECT.replace(
    "m.tool_calls or []", "(m.tool_calls if m.content is none else none) or []"
).replace("{{ m.content }}", "{{ m.content or '' }}")
IN_SYSTEM = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if m.tools %}<|tool|>{{ m.tools }}<|/tool|>{% endif %}<|im_end|>\n{% endfor %}"
    "{# <|tool_call|> #}"
)
ONE_CALL = AS_OBJECT.replace(
    "{% for c in",
    "{% if (m.tool_calls or []) | length > 1 %}{{ raise_exception('one') }}{% endif %}{% for c in",
)
MISTRAL = (
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}{{ m.content }}"
    "{% if m.tool_calls %}[TOOL_CALLS]["
    "{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{ raise_exception('id') }}{% endif %}"
    '{{ {"name": c.function.name, "arguments": c.function.arguments, "id": c.id} | tojson }}'
    "{{ '' if loop.last else ', ' }}{% endfor %}]{% endif %}"
    "{% if m.role == 'tool' %}<{{ m.tool_call_id }}>{% endif %}{% endfor %}"
)

TOOLS = (Tool("lamp", "A lamp", {"type": "object", "properties": {"room": {"type": "string"}}}),)


def chat(calls: list[dict[str, Any]], *results: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": "please"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        *({"role": "tool", **result} for result in results),
    ]


CALL = {"name": "lamp", "arguments": {"room": "a"}}
CHAT = chat([CALL], {"content": "done"})
WRITTEN = '<tool_call>\n{"name": "lamp", "arguments": {"room": "a"}}\n</tool_call>'


def render(source: str, messages: list[dict[str, Any]] = CHAT, **options: Any) -> str:
    template = ChatTemplate(source, TOKENIZER)
    try:
        return template.render(messages, **{"tools": TOOLS, **options})
    finally:
        template.close()


@pytest.mark.parametrize("source", [AS_OBJECT, AS_TEXT, NO_CONTENT, ONE_CALL, PLAIN])
def test_a_call_is_written_as_the_template_wants_it(source: str) -> None:
    assert WRITTEN in render(source)


def test_a_template_that_knows_tools_gets_them_and_no_text_of_ours() -> None:
    text = render(AS_OBJECT)
    assert text.startswith(json.dumps(TOOLS[0].declaration()))
    assert "# Tools" not in text


def test_a_template_without_tools_has_them_in_the_system_message() -> None:
    text = render(PLAIN, [{"role": "system", "content": "be short"}, *CHAT])
    assert text.startswith("<|im_start|>system\nbe short\n\n# Tools")
    assert '"description": "A lamp"' in text
    assert "<|im_start|>tool\ndone" in text


def test_a_template_without_system_and_tool_messages_gets_both_from_the_user() -> None:
    text = render(ALTERNATING, [*CHAT, {"role": "user", "content": "thanks"}])
    assert text.startswith("[user]# Tools")
    assert text.endswith("[user]<tool_response>\ndone\n</tool_response>\n\nthanks")


def test_phi_4_mini_has_the_tools_in_the_system_messages_field() -> None:
    text = render(IN_SYSTEM)
    assert text.startswith('<|im_start|>system\n<|tool|>[{"name": "lamp"')
    assert '<|tool_call|>[{"name": "lamp", "arguments": {"room": "a"}}]<|/tool_call|>' in text


def test_several_calls_become_messages_of_one_where_the_template_wants_that() -> None:
    calls = [{**CALL, "id": "x"}, {**CALL, "id": "y"}]
    messages = chat(
        calls, {"content": "of y", "tool_call_id": "y"}, {"content": "of x", "tool_call_id": "x"}
    )
    assert render(AS_OBJECT, messages).count("<|im_start|>assistant") == 1
    text = render(ONE_CALL, messages)
    assert text.count("<|im_start|>assistant") == 2
    places = [
        text.index(part)
        for part in (WRITTEN, "of x", WRITTEN + "<|im_end|>\n<|im_start|>tool\nof y")
    ]
    assert places == sorted(places)


def test_ids_are_given_where_they_are_missing_and_fit_the_format() -> None:
    text = render(
        MISTRAL, chat([CALL, {**CALL, "id": "call_abc"}], {"content": "one"}, {"content": "two"})
    )
    ids = [
        entry["id"]
        for entry in json.loads(text[text.index("[TOOL_CALLS]") + 12 : text.index("]one") + 1])
    ]
    assert ids[0] == "call00000"
    assert len(ids[1]) == 9
    assert text.endswith(f"]one<{ids[0]}>two<{ids[1]}>")


def test_a_result_finds_its_call_by_the_tools_name() -> None:
    calls = [{"name": "a", "arguments": {}}, {"name": "b", "arguments": {}}]
    text = render(MISTRAL, chat(calls, {"content": "B", "tool_name": "b"}, {"content": "A"}))
    assert text.endswith("B<call00001>A<call00000>")


def test_thoughts_of_the_history_go_where_the_template_wants_them() -> None:
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "thinking": "hm"},
    ]
    assert "<think>hm</think>a" in render(AS_OBJECT, messages, tools=())
    assert "hm" not in render(PLAIN, messages, tools=())


def test_an_answer_is_continued_where_it_ends() -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "It is "}]
    for source in (PLAIN, AS_OBJECT):
        text = render(source, messages, tools=(), continue_final=True)
        assert text.endswith("<|im_start|>assistant\nIt is ")
    hidden = (
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
        "{{ '>' if add_generation_prompt }}"
    )
    assert render(hidden, messages, tools=(), continue_final=True) == "q>It is "
    for last in ({"role": "user", "content": "x"}, {"role": "assistant", "content": ""}):
        with pytest.raises(LlamadError, match="continue_final_message"):
            render(PLAIN, [*messages, last], tools=(), continue_final=True)


def test_only_the_assistant_calls() -> None:
    with pytest.raises(LlamadError, match=r"\[0\].tool_calls are the assistant's only"):
        render(PLAIN, [{"role": "user", "content": "x", "tool_calls": [CALL]}])


TEXT = st.lists(
    st.sampled_from(
        [*MARKS, "<|im_", "end|>", "<tool", "_call>", "a", " ", "\n", '"', "\\", "{", "é"]
    ),
    min_size=1,
    max_size=5,
).map("".join)
TEMPLATES = {
    source: ChatTemplate(source, TOKENIZER) for source in (PLAIN, AS_OBJECT, AS_TEXT, IN_SYSTEM)
}


def everywhere(text: str) -> tuple[list[dict[str, Any]], tuple[Tool, ...]]:
    """Return a chat with the text in every field that a user fills."""
    call = {"name": "lamp", "id": text, "arguments": {text: text, "l": [text, {"k": text}]}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": text},
        {"role": "user", "content": text},
        {"role": "assistant", "content": text, "thinking": text, "tool_calls": [call]},
        {"role": "tool", "content": text, "tool_call_id": text, "tool_name": text},
    ]
    schema = {"type": "object", "properties": {text: {"type": "string", "description": text}}}
    return messages, (Tool("lamp", text, schema),)


@pytest.mark.parametrize("source", TEMPLATES)
@given(text=TEXT)
@settings(max_examples=40, deadline=None)
def test_no_field_adds_a_control_token_or_changes_the_text(source: str, text: str) -> None:
    template = TEMPLATES[source]
    messages, tools = everywhere(text)
    tokens = template.encode(messages, tools=tools)

    def controls(tokens: list[int]) -> list[int]:
        return [token for token in tokens if TOKENIZER.vocabulary.types[token] == CONTROL]

    plain_messages, plain_tools = everywhere("x")
    assert controls(tokens) == controls(template.encode(plain_messages, tools=plain_tools))
    assert TOKENIZER.decode(tokens, special=True) == template.render(messages, tools=tools)
