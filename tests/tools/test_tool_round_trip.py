"""Calls in a conversation, through each template that llama.cpp keeps, and read back.

Needs ``build/llama-cpp``, which ``make peer`` fetches.
"""

import re
from typing import Any

import pytest

from llama_cpp_source import FOLDER, MISSING
from llamad.text import ChatTemplate, tokenizer_from_metadata
from llamad.text.tools.call import Call, Tool, Tools
from llamad.text.tools.formats import LLAMA_3
from llamad.text.tools.splitter import CallSplitter
from unit.text.vocabularies import bpe_metadata

if not FOLDER.exists():
    pytest.skip(MISSING, allow_module_level=True)

# Of the others those that know no tools, or whose format is in no row: they get the generic one.
NATIVE = {
    "Bielik-11B-v3.0-Instruct.jinja": "hermes",
    "ByteDance-Seed-OSS.jinja": "qwen-coder",
    "LFM2.5-8B-A1B.jinja": "lfm2",
    "MiMo-VL.jinja": "hermes",
    "Mistral-Small-3.2-24B-Instruct-2506.jinja": "mistral",
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16.jinja": "qwen-coder",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja": "hermes",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja": "hermes",
    "Qwen-QwQ-32B.jinja": "hermes",
    "Qwen-Qwen2.5-7B-Instruct.jinja": "hermes",
    "Qwen-Qwen3-0.6B.jinja": "hermes",
    "Qwen3-Coder.jinja": "qwen-coder",
    "Qwen3.5-4B.jinja": "qwen-coder",
    "Reka-Edge.jinja": "hermes",
    "StepFun3.5-Flash.jinja": "qwen-coder",
    "google-gemma-4-31B-it-interleaved.jinja": "gemma-4",
    "google-gemma-4-31B-it.jinja": "gemma-4",
    "ibm-granite-granite-3.3-2B-Instruct.jinja": "granite-3",
    "ibm-granite-granite-4.0.jinja": "hermes",
    "ibm-granite-granite-4.1.jinja": "hermes",
    "meetkai-functionary-medium-v3.1.jinja": "functionary-3.1",
    "meetkai-functionary-medium-v3.2.jinja": "functionary-3.2",
    "meta-llama-Llama-3.1-8B-Instruct.jinja": "llama-3",
    "meta-llama-Llama-3.2-3B-Instruct.jinja": "llama-3",
    "meta-llama-Llama-3.3-70B-Instruct.jinja": "llama-3",
    "mistralai-Ministral-3-14B-Reasoning-2512.jinja": "mistral",
    "mistralai-Mistral-Nemo-Instruct-2407.jinja": "mistral",
    "openai-gpt-oss-120b.jinja": "harmony",
    "unsloth-mistral-Devstral-Small-2507.jinja": "mistral",
}
WANT_TOOLS = {
    "CohereForAI-c4ai-command-r-plus-tool_use.jinja",
    "fireworks-ai-llama-3-firefunction-v2.jinja",
}
TEMPLATES = [
    path for path in sorted((FOLDER / "templates").glob("*.jinja")) if path.name not in WANT_TOOLS
]
TOKENIZER = tokenizer_from_metadata(bpe_metadata())

SCHEMA = {
    "type": "object",
    "properties": {"room": {"type": "string"}, "level": {"type": "integer"}},
    "required": ["room"],
}
TOOLS = (Tool("set_lamp", "Set a lamp", SCHEMA), Tool("get_time", "The time"))
LAMP = {"room": 'Küche "<x>" {} 🙂', "level": 3, "share": 0.5, "tags": ["a", "b"], "o": {"k": "v"}}
CALLS = [{"name": "set_lamp", "arguments": LAMP}, {"name": "get_time", "arguments": {"zone": "x"}}]
RESULTS = ["the lamp is on", "it is noon"]
END = re.compile(r"<\|(?:eot_id|eom_id|im_end|end|call|end_of_text|endoftext)\|>|</s>|<turn\|>")


def conversation(n: int) -> list[dict[str, Any]]:
    calls = [{**call, "id": f"id-{i}"} for i, call in enumerate(CALLS[:n])]
    results = [
        {"role": "tool", "content": text, "tool_call_id": f"id-{i}"}
        for i, text in enumerate(RESULTS[:n])
    ]
    return [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "light please"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        *results,
        {"role": "assistant", "content": "done as asked"},
        {"role": "user", "content": "thanks"},
    ]


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("name", [path.name for path in TEMPLATES])
def test_calls_come_back_from_a_template(name: str, n: int) -> None:
    source = (FOLDER / "templates" / name).read_text(encoding="utf-8")
    template = ChatTemplate(source, TOKENIZER)
    messages = conversation(n)
    text = template.render(messages, tools=TOOLS)
    begin = text.index("light please")
    end = text.index("done as asked")
    for result in RESULTS[:n]:
        assert result in text[begin:end]
    row = template.tool_format
    found: list[Call] = []
    for piece in END.split(text[begin + len("light please") : end]):
        splitter = CallSplitter(row, Tools(TOOLS))
        if row is LLAMA_3 and "{" in piece:  # the answer begins behind the head of its turn
            piece = piece[piece.index("{") :]
        found += [
            part for part in [*splitter.push(piece), *splitter.flush()] if isinstance(part, Call)
        ]
    template.close()
    assert row.name == NATIVE.get(name, "generic")
    assert [(call.name, call.arguments) for call in found] == [
        (call["name"], call["arguments"]) for call in CALLS[:n]
    ]
