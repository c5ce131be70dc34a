"""A file without a chat template gets that of its family: by its control tokens, or its name."""

from collections.abc import Iterable
from typing import Any

import pytest

from llamad.text import ChatTemplate, tokenizer_from_metadata
from llamad.text.fallback_templates import FALLBACKS, Fallback, choose_fallback
from llamad.text.tools.call import Tool
from unit.text.vocabularies import CONTROL, bpe_metadata, token_id

TURNS = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "go"},
]
# Of the rows that other tests do not spell out; <s> and </s> stand for BOS and EOS.
TEXTS = {
    "phi-4": (
        "<|im_start|>system<|im_sep|>be brief<|im_end|><|im_start|>user<|im_sep|>hi<|im_end|>"
        "<|im_start|>assistant<|im_sep|>yes<|im_end|><|im_start|>user<|im_sep|>go<|im_end|>"
        "<|im_start|>assistant<|im_sep|>"
    ),
    "gemma-4": (
        "<s><|turn>system\nbe brief<turn|>\n<|turn>user\nhi<turn|>\n<|turn>model\nyes<turn|>\n"
        "<|turn>user\ngo<turn|>\n<|turn>model\n"
    ),
    "phi-4-mini": (
        "<|system|>be brief<|end|><|user|>hi<|end|><|assistant|>yes<|end|><|user|>go<|end|>"
        "<|assistant|>"
    ),
    "granite": (
        "<|start_of_role|>system<|end_of_role|>be brief<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>hi<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>yes<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>go<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>"
    ),
    "mistral-7": "<s>[SYSTEM_PROMPT]be brief[/SYSTEM_PROMPT][INST]hi[/INST]yes</s>[INST]go[/INST]",
    "mistral-3": "<s>[INST]be brief\n\nhi[/INST]yes</s>[INST]go[/INST]",
    "command-r": (
        "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>be brief<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>hi<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>yes<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>go<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
    ),
    "exaone-4": (
        "[|system|]\nbe brief[|endofturn|]\n[|user|]\nhi[|endofturn|]\n"
        "[|assistant|]\nyes[|endofturn|]\n[|user|]\ngo[|endofturn|]\n"
        "[|assistant|]\n<think>\n\n</think>\n\n"
    ),
    "harmony": (
        "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
        "Knowledge cutoff: 2024-06\n\nReasoning: medium\n\n# Valid channels: analysis, "
        "commentary, final. Channel must be included for every message.<|end|>"
        "<|start|>developer<|message|># Instructions\n\nbe brief<|end|>"
        "<|start|>user<|message|>hi<|end|>"
        "<|start|>assistant<|channel|>final<|message|>yes<|end|>"
        "<|start|>user<|message|>go<|end|><|start|>assistant"
    ),
    "deepseek": "<s>be brief<｜User｜>hi<｜Assistant｜>yes</s><｜User｜>go<｜Assistant｜>",
    "hunyuan": (
        "<s>be brief<｜hy_place▁holder▁no▁3｜><｜hy_User｜>hi"
        "<｜hy_Assistant｜>yes<｜hy_place▁holder▁no▁2｜><｜hy_User｜>go<｜hy_Assistant｜>"
    ),
    "seed-oss": (
        "<seed:bos>system\nbe brief<seed:eos><seed:bos>user\nhi<seed:eos>"
        "<seed:bos>assistant\nyes<seed:eos><seed:bos>user\ngo<seed:eos><seed:bos>assistant\n"
    ),
    "olmo-2": "<s><|system|>\nbe brief\n<|user|>\nhi\n<|assistant|>\nyes</s>\n<|user|>\ngo\n"
    "<|assistant|>\n",
    "ernie": (
        "<|begin_of_sentence|>be brief\nUser: hi\nAssistant: yes<|end_of_sentence|>User: go\n"
        "Assistant: "
    ),
    "phi-2": "be brief\nInstruct: hi\nOutput: yes\nInstruct: go\nOutput:",
    "minicpm": "<用户>be brief\n\nhi<AI>yes<用户>go<AI>",
}
ROWS = {row.name: row for row in FALLBACKS}


def template_of(row: Fallback, more: Iterable[str] = ()) -> ChatTemplate:
    controls = ["<s>", "</s>", *row.markers, *more]
    metadata = bpe_metadata(special=[(text, CONTROL) for text in dict.fromkeys(controls)])
    metadata["tokenizer.ggml.bos_token_id"] = token_id(metadata, "<s>")
    metadata["tokenizer.ggml.eos_token_id"] = token_id(metadata, "</s>")
    metadata["general.architecture"] = next(iter(row.architectures), "llama")
    return ChatTemplate.from_metadata(metadata, tokenizer_from_metadata(metadata))


@pytest.mark.parametrize("name", TEXTS)
def test_a_conversation_has_the_form_that_the_family_was_trained_on(name: str) -> None:
    template = template_of(ROWS[name])
    assert template.substitute == name
    assert template.render(TURNS) == TEXTS[name]
    template.close()


def test_harmony_declares_tools_and_leaves_out_thoughts_behind_which_there_is_an_answer() -> None:
    template = template_of(ROWS["harmony"])
    schema = {
        "type": "object",
        "properties": {
            "room": {"type": "string", "description": "which"},
            "mode": {"enum": ["day", "night"]},
            "levels": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["room"],
    }
    call = {"name": "set_lamp", "arguments": {"room": "Küche"}}
    turn: list[dict[str, Any]] = [
        {"role": "user", "content": "light"},
        {"role": "assistant", "content": "I look.", "thinking": "Hm.", "tool_calls": [call]},
        {"role": "tool", "content": "on"},
    ]
    called = (
        "<|start|>user<|message|>light<|end|>{}<|start|>assistant<|channel|>commentary"
        ' to=functions.set_lamp <|constrain|>json<|message|>{{"room": "Küche"}}<|call|>'
        "<|start|>functions.set_lamp to=assistant<|channel|>commentary<|message|>on<|end|>"
    )
    thought = "<|start|>assistant<|channel|>analysis<|message|>Hm.\n\nI look.<|end|>"
    answer = {"role": "assistant", "content": "Done.", "thinking": "So."}
    text = template.render(
        [*turn, answer, *turn],
        tools=(Tool("set_lamp", "Set a lamp", schema), Tool("now", "The time")),
        arguments=template.thinking_arguments(None, "high"),
    )
    template.close()
    assert "\n\nReasoning: high\n\n" in text
    assert text.endswith(
        "<|start|>developer<|message|># Tools\n\n## functions\n\nnamespace functions {\n\n"
        "// Set a lamp\ntype set_lamp = (_: {\n// which\nroom: string,\n"
        'mode?: "day" | "night",\nlevels?: (number)[],\n}) => any;\n\n'
        "// The time\ntype now = () => any;\n\n} // namespace functions<|end|>"
        + called.format("")
        + "<|start|>assistant<|channel|>final<|message|>Done.<|end|>"
        + called.format(thought)
        + "<|start|>assistant"
    )


@pytest.mark.parametrize("row", FALLBACKS, ids=lambda row: row.name)
def test_every_row_is_chosen_for_what_it_is_for(row: Fallback) -> None:
    for architecture in row.architectures or ("llama",):
        chosen = choose_fallback(row.markers, architecture, is_sentencepiece=False)
        assert chosen.name == row.name
    if row.architectures:
        assert choose_fallback(row.markers, "llama", is_sentencepiece=False).name == "transcript"


def test_a_vocabulary_that_lacks_a_mark_of_a_format_does_not_get_it() -> None:
    for row in FALLBACKS:
        for missing in row.markers:
            rest = [text for text in row.markers if text != missing]
            assert choose_fallback(rest, "llama", is_sentencepiece=True).name != row.name


@pytest.mark.parametrize("name", [name for name in TEXTS if ROWS[name].markers])
def test_a_user_cannot_write_the_marks_of_a_format(name: str) -> None:
    template = template_of(ROWS[name])
    plain = template.encode([{"role": "user", "content": "hi"}])
    forged = template.encode([{"role": "user", "content": "hi" + "".join(ROWS[name].markers)}])
    texts = ROWS[name].markers
    controls = {template._tokenizer.vocabulary.tokens.index(text) for text in texts}
    assert [t for t in forged if t in controls] == [t for t in plain if t in controls]
    template.close()
