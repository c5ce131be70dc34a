"""The chat templates that llama.cpp keeps, each rendered as transformers would render it.

What transformers leaves to its caller is what llama.cpp gives: today's date, and no functions.

The other side is jinja2 itself, set up as ``transformers.utils.chat_template_utils`` sets it up:
no process, no limits, no guard. Needs ``build/llama-cpp``, which ``make peer`` fetches.
"""

import json
from datetime import datetime
from typing import Any, Never

import pytest
from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llama_cpp_source import FOLDER, MISSING
from llamad.errors import ErrorKind, LlamadError
from llamad.text import ChatTemplate, tokenizer_from_metadata
from llamad.text.fallback_templates import FALLBACKS, Fallback
from unit.text.vocabularies import bpe_metadata

if not FOLDER.exists():
    pytest.skip(MISSING, allow_module_level=True)

TEMPLATES = sorted((FOLDER / "templates").glob("*.jinja"))
TOKENIZER = tokenizer_from_metadata(bpe_metadata())

CHATS = {
    "a question": [("user", "hi  ")],
    "turns": [("user", "a\n"), ("assistant", "<think>b</think> c"), ("user", "<é> & \"'")],
    "a system message": [("system", "be short"), ("user", "a"), ("assistant", "b"), ("user", "c")],
    "two questions": [("user", "a"), ("user", "b")],
}


class Generation(Extension):
    tags = {"generation"}  # noqa: RUF012 - as the base class declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def refuse(message: str) -> Never:
    raise TemplateError(message)


def environment() -> ImmutableSandboxedEnvironment:
    result = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    result.filters["tojson"] = lambda value, **options: json.dumps(
        value, **{"ensure_ascii": False, **options}
    )
    result.globals["raise_exception"] = refuse
    result.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return result


def expected(
    source: str, messages: list[dict[str, str]], tools: list[Any] | None = None
) -> str | None:
    """Return what jinja2 makes of a chat, None where the template refuses it or fails."""
    variables: dict[str, Any] = {"messages": messages, "tools": tools, "documents": None}
    now = datetime.now()
    variables |= {"date_string": now.strftime("%d %b %Y"), "datetime": now.strftime("%b %d %Y")}
    variables["functions"] = ""
    roles = {"bos_token": TOKENIZER.bos_id, "eos_token": TOKENIZER.eos_id}
    for name, token in roles.items():
        variables[name] = "" if token is None else TOKENIZER.vocabulary.tokens[token]
    try:
        template = environment().from_string(source)
        return template.render(**variables, add_generation_prompt=True)
    except (TemplateError, TypeError, ValueError, AttributeError):
        return None


def actual(template: ChatTemplate, messages: list[dict[str, str]]) -> str | None:
    try:
        return template._run(messages, add_generation_prompt=True)
    except LlamadError as error:
        if error.kind is ErrorKind.INVALID:
            return None
        raise


WANT_TOOLS = {  # with transformers a chat without tools fails: they go through None
    "CohereForAI-c4ai-command-r-plus-tool_use.jinja",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja",
}


def test_there_are_70_templates() -> None:
    assert len(TEMPLATES) == 70


@pytest.mark.parametrize("name", [path.name for path in TEMPLATES])
def test_a_template_renders_as_with_transformers(name: str) -> None:
    source = (FOLDER / "templates" / name).read_text(encoding="utf-8")
    template = ChatTemplate(source, TOKENIZER)
    rendered = 0
    for title, turns in CHATS.items():
        messages = [{"role": role, "content": text} for role, text in turns]
        theirs = expected(source, messages)
        if name in WANT_TOOLS:
            assert theirs is None
            theirs = expected(source, messages, [])
        assert actual(template, messages) == theirs, title
        rendered += theirs is not None
    template.close()
    assert rendered


# A fallback of ours, and the templates that write the same for a chat with a system message.
SAME_FORMAT = {
    "chatml": ("Qwen-Qwen3-0.6B", "Qwen-Qwen2.5-7B-Instruct"),
    "phi-3": ("microsoft-Phi-3.5-mini-instruct",),
    "granite": (
        "ibm-granite-granite-3.3-2B-Instruct",
        "ibm-granite-granite-4.0",
        "ibm-granite-granite-4.1",
    ),
    "mistral-7": (
        "Mistral-Small-3.2-24B-Instruct-2506",
        "mistralai-Ministral-3-14B-Reasoning-2512",
        "unsloth-mistral-Devstral-Small-2507",
    ),
    "seed-oss": ("ByteDance-Seed-OSS",),
}
SAME_BUT_FOR_SYSTEM_MESSAGES = {
    "gemma": ("google-gemma-2-2b-it",),
    "mistral-3": ("mistralai-Mistral-Nemo-Instruct-2407",),
}
SAME_BUT_FOR_AN_EMPTY_THOUGHT = {"gemma-4": ("google-gemma-4-31B-it",)}


@pytest.mark.parametrize("row", FALLBACKS, ids=lambda row: row.name)
def test_a_fallback_writes_what_the_templates_of_its_family_write(row: Fallback) -> None:
    cases = [(name, CHATS["a system message"], "") for name in SAME_FORMAT.get(row.name, ())]
    others = SAME_BUT_FOR_SYSTEM_MESSAGES.get(row.name, ())
    cases += [(name, CHATS["a system message"][1:], "") for name in others]
    thought = "<|channel>thought\n<channel|>"
    others = SAME_BUT_FOR_AN_EMPTY_THOUGHT.get(row.name, ())
    cases += [(name, CHATS["a system message"], thought) for name in others]
    for name, turns, end in cases:
        source = (FOLDER / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
        messages = [{"role": role, "content": text} for role, text in turns]
        ours = expected(row.source, messages)
        assert ours is not None
        assert ours + end == expected(source, messages), name
