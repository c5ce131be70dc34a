"""Chat templates for files that have none: the format each family was trained on, written by us.

A table. The vocabulary says first what a model was trained on, because a chat format has control
tokens of its own; where a format is plain text, the architecture says it. Each row names where its
makers publish the format; ``tests/tools/test_llama_cpp_templates.py`` compares those that llama.cpp
keeps as files. A system message that a format does not know is left out here: the caller then puts
its text before the first user message (``chat_template.py``).
"""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fallback:
    """A template, and which models it is for.

    markers: control tokens, all of which the vocabulary has; none: architectures alone decide.
    architectures: values of ``general.architecture``; none: any.
    """

    name: str
    source: str
    markers: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()


def _turns(before: str, after: str, *, assistant: str = "assistant", bos: bool = False) -> str:
    """Return the template of turns that differ in the name of the role only.

    before, after: of a message, ROLE standing for its name.
    """
    start, role = before.replace("\n", "\\n"), "message.role"
    if assistant != "assistant":
        role = f"('{assistant}' if message.role == 'assistant' else message.role)"
    parts = start.split("ROLE")
    opening = f"'{parts[0]}' + {role} + '{parts[1]}'"
    closing = after.replace("\n", "\\n")
    return (
        ("{{ bos_token }}" if bos else "")
        + "{%- for message in messages %}{{- "
        + opening
        + " + message.content | trim + '"
        + closing
        + "' }}{%- endfor %}{%- if add_generation_prompt %}{{- '"
        + start.replace("ROLE", assistant)
        + "' }}{%- endif %}"
    )


_CHATML = """\
{% for message in messages %}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

_LLAMA2 = """\
{% set ns = namespace(system='') %}
{% for message in messages %}
{% if message.role == 'system' %}
{% set ns.system = '<<SYS>>\\n' + message.content + '\\n<</SYS>>\\n\\n' %}
{% elif message.role == 'assistant' %}
{{ ' ' + message.content | trim + ' ' + eos_token }}
{%- else %}
{{ bos_token + '[INST] ' + ns.system + message.content | trim + ' [/INST]' }}
{%- set ns.system = '' %}
{% endif %}
{% endfor %}"""

# Mistral AI's tekken vocabulary, versions 3 and 7: no spaces around the marks.
_MISTRAL = """\
{{ bos_token }}
{%- for message in messages if message.role != 'system' or has_system %}
{%- if message.role == 'system' %}{{ '[SYSTEM_PROMPT]' + message.content + '[/SYSTEM_PROMPT]' }}
{%- elif message.role == 'assistant' %}{{ message.content + eos_token }}
{%- else %}{{ '[INST]' + message.content + '[/INST]' }}{% endif %}
{%- endfor %}"""
_MISTRAL_3 = "{%- set has_system = false %}" + _MISTRAL
_MISTRAL_7 = "{%- set has_system = true %}" + _MISTRAL

# Without system messages, which Gemma was not trained with.
_GEMMA = _turns("<start_of_turn>ROLE\n", "<end_of_turn>\n", assistant="model", bos=True).replace(
    "in messages %}", "in messages if message.role != 'system' %}"
)

_COMMAND_R = """\
{{ bos_token }}
{%- set names = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT', 'tool': 'SYSTEM'} %}
{%- for message in messages %}
{{- '<|START_OF_TURN_TOKEN|><|' + names[message.role] + '_TOKEN|>' -}}
{{- message.content | trim + '<|END_OF_TURN_TOKEN|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"""

_DEEPSEEK = """\
{{ bos_token }}
{%- for message in messages %}
{%- if message.role == 'system' %}{{ message.content }}
{%- elif message.role == 'assistant' %}{{ '<｜Assistant｜>' + message.content + eos_token }}
{%- else %}{{ '<｜User｜>' + message.content }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"""

_HUNYUAN = """\
{{ bos_token }}
{%- for message in messages %}
{%- if message.role == 'system' %}{{ message.content + '<｜hy_place▁holder▁no▁3｜>' }}
{%- elif message.role == 'assistant' -%}
{{ '<｜hy_Assistant｜>' + message.content + '<｜hy_place▁holder▁no▁2｜>' }}
{%- else %}{{ '<｜hy_User｜>' + message.content }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<｜hy_Assistant｜>' }}{% endif %}"""

_OLMO2 = """\
{{ bos_token }}
{%- for message in messages %}
{{- '<|' + message.role + '|>\\n' + message.content }}
{%- if message.role == 'assistant' %}{{ eos_token }}{% endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""

_ERNIE = """\
{{ '<|begin_of_sentence|>' }}
{%- for message in messages %}
{%- if message.role == 'system' %}{{ message.content + '\\n' }}
{%- elif message.role == 'assistant' %}
{{- 'Assistant: ' + message.content + '<|end_of_sentence|>' }}
{%- else %}{{ 'User: ' + message.content + '\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"""

_PHI2 = """\
{%- for message in messages %}
{%- if message.role == 'system' %}{{ message.content | trim + '\\n' }}
{%- elif message.role == 'assistant' %}{{ 'Output: ' + message.content | trim + '\\n' }}
{%- else %}{{ 'Instruct: ' + message.content | trim + '\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'Output:' }}{% endif %}"""

_MINICPM = """\
{%- for message in messages if message.role != 'system' %}
{%- if message.role == 'assistant' %}{{ message.content | trim }}
{%- else %}{{ '<用户>' + message.content | trim + '<AI>' }}{% endif %}
{%- endfor %}"""

# A caller's system message is the developer's; the system's own says what channels there are. Tools
# are declared as TypeScript. Of earlier turns only answers stay: thoughts until there is one.
_HARMONY = """\
{%- macro type_of(schema) -%}
{%- if schema is not mapping -%}any
{%- elif schema.enum -%}{{ schema.enum | map('tojson') | join(' | ') }}
{%- elif schema.type == 'array' -%}({{ type_of(schema['items']) }})[]
{%- elif schema.type == 'object' and schema.properties is mapping -%}{{ members(schema) }}
{%- elif schema.type in ['integer', 'number'] -%}number
{%- elif schema.type in ['string', 'boolean', 'object', 'null'] -%}{{ schema.type }}
{%- else -%}any
{%- endif -%}
{%- endmacro -%}
{%- macro members(schema) -%}
{{ '{\\n' }}
{%- for name, inner in schema.properties.items() -%}
{%- if inner is mapping and inner.description -%}
{{ '// ' + inner.description + '\\n' }}
{%- endif -%}
{{ name + ('' if name in (schema.required or []) else '?') + ': ' + type_of(inner) + ',\\n' }}
{%- endfor -%}
{{ '}' }}
{%- endmacro -%}
{{ '<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\\n' }}
{{- 'Knowledge cutoff: 2024-06\\n\\nReasoning: ' + reasoning_effort | default('medium') }}
{{- '\\n\\n# Valid channels: analysis, ' }}
{{- 'commentary, final. Channel must be included for every message.' }}
{%- if tools -%}
{{ '\\nCalls to these tools must go to the commentary channel: \\'functions\\'.' }}
{%- endif -%}
{{ '<|end|>' }}
{%- set ns = namespace(answered=-1, name='') -%}
{%- set first = messages[0] if messages[0].role == 'system' else none -%}
{%- if first or tools -%}
{{ '<|start|>developer<|message|>' }}
{%- if first -%}
{{ '# Instructions\\n\\n' + first.content + ('\\n\\n' if tools else '') }}
{%- endif -%}
{%- if tools -%}
{{ '# Tools\\n\\n## functions\\n\\nnamespace functions {\\n\\n' }}
{%- for tool in tools -%}
{%- set function = tool.function -%}
{{ '// ' + function.description | default('') + '\\ntype ' + function.name + ' = (' }}
{%- if function.parameters and function.parameters.properties -%}
{{ '_: ' + members(function.parameters) }}
{%- endif -%}
{{ ') => any;\\n\\n' }}
{%- endfor -%}
{{ '} // namespace functions' }}
{%- endif -%}
{{ '<|end|>' }}
{%- endif -%}
{%- for message in messages if message.role == 'assistant' and not message.tool_calls -%}
{%- set ns.answered = ns.answered + 1 -%}
{%- endfor -%}
{%- for message in messages %}
{%- if message.role == 'system' -%}
{%- if not loop.first -%}
{{ '<|start|>developer<|message|># Instructions\\n\\n' + message.content + '<|end|>' }}
{%- endif -%}
{%- elif message.role == 'assistant' and message.tool_calls -%}
{%- if message.thinking and ns.answered < 0 -%}
{{ '<|start|>assistant<|channel|>analysis<|message|>' + message.thinking + '<|end|>' }}
{%- endif -%}
{%- for call in message.tool_calls -%}
{%- set ns.name = call.function.name -%}
{{ '<|start|>assistant<|channel|>commentary to=functions.' + ns.name }}
{{- ' <|constrain|>json<|message|>' + call.function.arguments | tojson + '<|call|>' }}
{%- endfor -%}
{%- elif message.role == 'assistant' -%}
{%- set ns.answered = ns.answered - 1 -%}
{{ '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|end|>' }}
{%- elif message.role == 'tool' -%}
{{ '<|start|>functions.' + message.name | default(ns.name) }}
{{- ' to=assistant<|channel|>commentary<|message|>' + message.content + '<|end|>' }}
{%- else -%}
{{ '<|start|>user<|message|>' + message.content + '<|end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"""

_TRANSCRIPT = """\
{{ bos_token }}
{%- for message in messages %}
{{ message.role | capitalize + ': ' + message.content | trim + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}Assistant:{% endif %}"""

LLAMA_2 = Fallback("llama-2", _LLAMA2)  # Meta, llama/generation.py; also Mistral 7B
TRANSCRIPT = Fallback("transcript", _TRANSCRIPT)  # nobody's: a model without a chat format

# The first that fits. A format whose markers include those of another stands before it.
FALLBACKS: tuple[Fallback, ...] = (
    # Microsoft, model cards of Phi-4 (14B), Phi-4-mini and Phi-3
    Fallback(
        "phi-4",
        _turns("<|im_start|>ROLE<|im_sep|>", "<|im_end|>"),
        ("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
    ),
    # OpenAI; Qwen, SmolLM, LFM2, Falcon-H1, InternLM2 and many others
    Fallback("chatml", _CHATML, ("<|im_start|>",)),
    Fallback(  # Meta, model card of Llama 3
        "llama-3",
        _turns("<|start_header_id|>ROLE<|end_header_id|>\n\n", "<|eot_id|>", bos=True),
        ("<|start_header_id|>",),
    ),
    # Google, "Prompt structure" of Gemma and of Gemma 4
    Fallback("gemma", _GEMMA, ("<start_of_turn>", "<end_of_turn>")),
    Fallback(
        "gemma-4",
        _turns("<|turn>ROLE\n", "<turn|>\n", assistant="model", bos=True),
        ("<|turn>", "<turn|>"),
    ),
    Fallback(
        "phi-4-mini",
        _turns("<|ROLE|>", "<|end|>"),
        ("<|user|>", "<|assistant|>", "<|end|>", "<|tool_call|>"),
    ),
    Fallback("phi-3", _turns("<|ROLE|>\n", "<|end|>\n"), ("<|user|>", "<|assistant|>", "<|end|>")),
    Fallback(  # IBM, model cards of Granite 3 and 4
        "granite",
        _turns("<|start_of_role|>ROLE<|end_of_role|>", "<|end_of_text|>\n"),
        ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
    ),
    Fallback(  # Mistral AI, mistral-common: tokenizer versions 7 and 3
        "mistral-7",
        _MISTRAL_7,
        ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    ),
    # With <pad>, which Mistral 7B v0.3 has not: its SentencePiece vocabulary wants spaces.
    Fallback("mistral-3", _MISTRAL_3, ("[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "<pad>")),
    Fallback(  # Cohere, "Prompting Command R"
        "command-r",
        _COMMAND_R,
        ("<|START_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
    ),
    Fallback(  # LG, chat_template.jinja of EXAONE 4.0, without thinking
        "exaone-4",
        _turns("[|ROLE|]\n", "[|endofturn|]\n").replace(
            "{{- '[|assistant|]\\n' }}", "{{- '[|assistant|]\\n<think>\\n\\n</think>\\n\\n' }}"
        ),
        ("[|user|]", "[|assistant|]", "[|endofturn|]"),
    ),
    # OpenAI, "Harmony response format" of gpt-oss
    Fallback("harmony", _HARMONY, ("<|start|>", "<|channel|>", "<|message|>", "<|return|>")),
    # DeepSeek, model card of V3; R1's distilled models of Qwen and Llama
    Fallback("deepseek", _DEEPSEEK, ("<｜User｜>", "<｜Assistant｜>")),
    # Tencent, model card of Hunyuan-4B-Instruct
    Fallback("hunyuan", _HUNYUAN, ("<｜hy_User｜>", "<｜hy_Assistant｜>")),
    # ByteDance, chat_template.jinja of Seed-OSS
    Fallback(
        "seed-oss",
        _turns("<seed:bos>ROLE\n", "<seed:eos>"),
        ("<seed:bos>", "<seed:eos>"),
        ("seed_oss",),
    ),
    # Formats of plain text: Ai2's OLMo 2, Baidu's ERNIE 4.5, Microsoft's Phi-2, OpenBMB's MiniCPM
    Fallback("olmo-2", _OLMO2, architectures=("olmo2",)),
    Fallback("ernie", _ERNIE, architectures=("ernie4_5",)),
    Fallback("phi-2", _PHI2, architectures=("phi2",)),
    Fallback("minicpm", _MINICPM, architectures=("minicpm",)),
)


def choose_fallback(
    controls: Collection[str], architecture: str, *, is_sentencepiece: bool
) -> Fallback:
    """Return the template of a model without one.

    controls: the texts of its control tokens. architecture: empty where the file does not say.
    """
    known = frozenset(controls)
    for row in FALLBACKS:
        fits = architecture in row.architectures or not row.architectures
        if fits and known.issuperset(row.markers):
            return row
    return LLAMA_2 if is_sentencepiece else TRANSCRIPT
