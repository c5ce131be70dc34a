"""The formats in which models call tools: the table, and which of its rows a model has.

A row is found by a mark in the model's chat template or vocabulary, the first that fits. The marks
are those of the models' published templates.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from llamad.text.tools import tagged_calls as tags
from llamad.text.tools.call import Call, Reader, arguments_text
from llamad.text.tools.gemma_calls import gemma_calls
from llamad.text.tools.json_calls import bare_json, json_behind
from llamad.text.tools.python_calls import CALLS, CALLS_END, python_calls
from llamad.text.tools.syntax import CallSyntax, Notation, bare_object, json_in_tags, json_list
from llamad.text.vocabulary import TokenType, Vocabulary


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """One format.

    Behind each mark of ``readers`` a call may stand; those of ``at_start`` count only where the
    answer begins. ``syntaxes``: what a model may write behind which mark, the first one when it
    must call. ``controls``: more marks that a vocabulary may have as control tokens, which are no
    text otherwise. ``write``: calls as the model writes them, for a template that does not.
    ``text_name``: a name behind which text follows instead of arguments. ``thoughts_with_calls``:
    what a message with calls says is a thought in front of them.
    """

    name: str
    syntaxes: tuple[CallSyntax, ...]
    readers: tuple[tuple[str, Reader], ...]
    write: Callable[[Sequence[Call]], str]
    at_start: tuple[tuple[str, Reader], ...] = ()
    controls: tuple[str, ...] = ()
    short_ids: bool = False  # an id of a call has nine letters and digits
    text_name: str = ""
    thoughts_with_calls: bool = False

    def opened(self, prompt_tail: str) -> str:
        """Return the mark of a call that a prompt which ends so has begun; else ""."""
        mark = self.syntaxes[0].mark
        return mark if prompt_tail.endswith(mark) else ""

    def controls_in(self, vocabulary: Vocabulary) -> dict[int, str]:
        """Return the marks that are control tokens of a vocabulary, by id."""
        opening = {mark for mark, _ in (*self.readers, *self.at_start)}
        marks, tokens = opening | set(self.controls), vocabulary.tokens
        controls = vocabulary.ids_of(TokenType.CONTROL)
        return {token: tokens[token] for token in controls if tokens[token] in marks}


def _json(call: Call, arguments: str = "arguments") -> str:
    name = arguments_text({"": call.name})[5:-1]
    return f'{{"name": {name}, "{arguments}": {arguments_text(call.arguments)}}}'


def _each(before: str, after: str, between: str = "\n") -> Callable[[Sequence[Call]], str]:
    """Return what writes each call as JSON between two marks."""
    return lambda calls: between.join(f"{before}{_json(call)}{after}" for call in calls)


def _list(before: str, after: str = "") -> Callable[[Sequence[Call]], str]:
    """Return what writes a list of JSON between two marks."""
    return lambda calls: f"{before}[{', '.join(_json(call) for call in calls)}]{after}"


def _tagged(calls: Sequence[Call]) -> str:
    return "\n".join(
        f"<tool_call>\n<function={call.name}>\n"
        + "".join(
            f"<parameter={key}>\n{_text(value)}\n</parameter>\n"
            for key, value in call.arguments.items()
        )
        + "</function>\n</tool_call>"
        for call in calls
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else arguments_text({"": value})[5:-1]


def _mistral(calls: Sequence[Call]) -> str:
    return "".join(
        f"[TOOL_CALLS]{call.name}[ARGS]{arguments_text(call.arguments)}" for call in calls
    )


def _function(calls: Sequence[Call]) -> str:
    return "".join(
        f"<function={call.name}>{arguments_text(call.arguments)}</function>" for call in calls
    )


def _recipient(calls: Sequence[Call]) -> str:
    return "".join(f">>>{call.name}\n{arguments_text(call.arguments)}" for call in calls)


def _llama(calls: Sequence[Call]) -> str:
    return "; ".join(_json(call, "parameters") for call in calls)


def _python(calls: Sequence[Call]) -> str:
    def value(entry: Any) -> str:
        if isinstance(entry, str):  # every character as it is but those that Python needs escaped
            escaped = entry.replace("\\", "\\\\").replace("'", "\\'")
            return "'" + escaped.replace("\n", "\\n").replace("\r", "\\r") + "'"
        if isinstance(entry, dict):
            members = (f"{value(key)}: {value(inner)}" for key, inner in entry.items())
            return "{" + ", ".join(members) + "}"
        if isinstance(entry, list):
            return "[" + ", ".join(value(inner) for inner in entry) + "]"
        return repr(entry)

    written = (
        f"{call.name}({', '.join(f'{key}={value(v)}' for key, v in call.arguments.items())})"
        for call in calls
    )
    return f"{CALLS}[{', '.join(written)}]{CALLS_END}"


def _gemma(opening: str, close: str, quote: str) -> Callable[[Sequence[Call]], str]:
    def value(entry: Any) -> str:
        if isinstance(entry, str):
            return f"{quote}{entry}{quote}"
        if isinstance(entry, dict):
            return "{" + members(entry) + "}"
        if isinstance(entry, list):
            return "[" + ",".join(value(inner) for inner in entry) + "]"
        return _text(entry)

    def members(entry: Any) -> str:
        return ",".join(f"{key}:{value(inner)}" for key, inner in entry.items())

    return lambda calls: "".join(
        f"{opening}call:{call.name}{{{members(call.arguments)}}}{close}" for call in calls
    )


def _deepseek(calls: Sequence[Call]) -> str:
    written = (
        f"{tags.DEEPSEEK_CALL}function{tags.DEEPSEEK_SEPARATOR}{call.name}\n"
        f"```json\n{arguments_text(call.arguments)}\n```{tags.DEEPSEEK_CALL_END}"
        for call in calls
    )
    return tags.DEEPSEEK_CALLS + "\n".join(written) + tags.DEEPSEEK_CALLS_END


def _harmony(calls: Sequence[Call]) -> str:
    return "".join(
        f"<|channel|>commentary to=functions.{call.name} <|constrain|>json<|message|>"
        f"{arguments_text(call.arguments)}<|call|>"
        for call in calls
    )


_GEMMA4 = ("<|tool_call>", "<tool_call|>", '<|"|>')
_FUNCTION_GEMMA = ("<start_function_call>", "<end_function_call>", "<escape>")
_BARE = (("{", bare_json), ("```", bare_json))


def _gemma_syntax(opening: str, close: str, quote: str) -> tuple[CallSyntax, ...]:
    head = f"{opening}call:"
    return (CallSyntax(opening, head, "", Notation.GEMMA, close, head, quote=quote),)


GEMMA_4 = ToolFormat(
    "gemma-4",
    _gemma_syntax(*_GEMMA4),
    ((_GEMMA4[0], gemma_calls(*_GEMMA4)),),
    _gemma(*_GEMMA4),
    controls=_GEMMA4[1:],
)
FUNCTION_GEMMA = ToolFormat(
    "function-gemma",
    _gemma_syntax(*_FUNCTION_GEMMA),
    ((_FUNCTION_GEMMA[0], gemma_calls(*_FUNCTION_GEMMA)),),
    _gemma(*_FUNCTION_GEMMA),
    controls=_FUNCTION_GEMMA[1:],
)
LFM2 = ToolFormat(
    "lfm2",
    (
        CallSyntax(CALLS, f"{CALLS}[", "(", Notation.PYTHON, ")", ", ", f"]{CALLS_END}"),
        json_list(f"{CALLS}[", f"]{CALLS_END}", spare=True),
    ),
    ((CALLS, python_calls),),
    _python,
    controls=(CALLS_END,),
)
DEEPSEEK = ToolFormat(
    "deepseek",
    (
        CallSyntax(
            tags.DEEPSEEK_CALLS,
            f"{tags.DEEPSEEK_CALLS}{tags.DEEPSEEK_CALL}function{tags.DEEPSEEK_SEPARATOR}",
            "\n```json\n",
            Notation.JSON,
            f"\n```{tags.DEEPSEEK_CALL_END}",
            f"\n{tags.DEEPSEEK_CALL}function{tags.DEEPSEEK_SEPARATOR}",
            tags.DEEPSEEK_CALLS_END,
        ),
        CallSyntax(  # V3.1
            tags.DEEPSEEK_CALLS,
            tags.DEEPSEEK_CALLS + tags.DEEPSEEK_CALL,
            tags.DEEPSEEK_SEPARATOR,
            Notation.JSON,
            tags.DEEPSEEK_CALL_END,
            tags.DEEPSEEK_CALL,
            tags.DEEPSEEK_CALLS_END,
        ),
    ),
    ((tags.DEEPSEEK_CALLS, tags.deepseek),),
    _deepseek,
    controls=(
        tags.DEEPSEEK_CALLS_END,
        tags.DEEPSEEK_CALL,
        tags.DEEPSEEK_CALL_END,
        tags.DEEPSEEK_SEPARATOR,
    ),
)
_RECIPIENT, _AS_JSON = " to=functions.", " <|constrain|>json<|message|>"
_COMMENTARY = f"<|channel|>commentary{_RECIPIENT}"
HARMONY = ToolFormat(
    "harmony",
    (
        CallSyntax(
            _COMMENTARY, _COMMENTARY, _AS_JSON, Notation.JSON, tags.HARMONY_CALL, _COMMENTARY
        ),
        CallSyntax(
            _RECIPIENT,
            _RECIPIENT,
            f"<|channel|>commentary{_AS_JSON}",
            Notation.JSON,
            tags.HARMONY_CALL,
            _RECIPIENT,
        ),
    ),
    ((_COMMENTARY, tags.harmony), (_RECIPIENT, tags.harmony)),
    _harmony,
    controls=("<|channel|>", "<|constrain|>", tags.HARMONY_MESSAGE, tags.HARMONY_CALL),
    thoughts_with_calls=True,
)
MISTRAL = ToolFormat(
    "mistral",
    (
        CallSyntax(tags.TOOL_CALLS, tags.TOOL_CALLS, tags.ARGS, Notation.JSON, "", tags.TOOL_CALLS),
        json_list(f"{tags.TOOL_CALLS}["),  # Nemo, and the next one 7B v0.3
        json_list(f"{tags.TOOL_CALLS} ["),
    ),
    ((tags.TOOL_CALLS, tags.mistral),),
    _mistral,
    controls=(tags.CALL_ID, tags.ARGS),
    short_ids=True,
)
FUNCTIONARY_2 = ToolFormat(
    "functionary-3.2",
    (CallSyntax(">>>", ">>>", "\n", Notation.JSON, "", ">>>"),),
    ((tags.RECIPIENT, tags.recipient),),
    _recipient,
    text_name="all\n",
)
FUNCTIONARY_1 = ToolFormat(
    "functionary-3.1",
    (
        CallSyntax(
            tags.FUNCTION,
            tags.FUNCTION,
            ">",
            Notation.JSON,
            tags.FUNCTION_END,
            tags.FUNCTION,
        ),
    ),
    ((tags.FUNCTION, tags.function_tag),),
    _function,
)
QWEN_CODER = ToolFormat(
    "qwen-coder",
    (
        CallSyntax(
            tags.TOOL_CALL,
            f"{tags.TOOL_CALL}\n{tags.FUNCTION}",
            ">\n",
            Notation.TAGS,
            f"{tags.FUNCTION_END}\n{tags.TOOL_CALL_END}",
            f"\n{tags.TOOL_CALL}\n{tags.FUNCTION}",
        ),
        json_in_tags(spare=True),
        CallSyntax(
            tags.FUNCTION,
            tags.FUNCTION,
            ">\n",
            Notation.TAGS,
            tags.FUNCTION_END,
            f"\n{tags.FUNCTION}",
        ),
        CallSyntax(
            tags.FUNCTION,
            tags.FUNCTION,
            ">",
            Notation.JSON,
            tags.FUNCTION_END,
            f"\n{tags.FUNCTION}",
            is_spare=True,
        ),
    ),
    ((tags.TOOL_CALL, tags.tool_call_tag), (tags.FUNCTION, tags.function_in_tag)),
    _tagged,
    controls=(tags.TOOL_CALL_END,),
)
HERMES = ToolFormat(
    "hermes",
    (json_in_tags(),),
    ((tags.TOOL_CALL, tags.tool_call_tag),),
    _each("<tool_call>\n", "\n</tool_call>"),
    controls=(tags.TOOL_CALL_END,),
)
PHI_4 = ToolFormat(
    "phi-4-mini",
    (json_list("<|tool_call|>[", "]<|/tool_call|>"), json_list("functools[")),
    (
        ("<|tool_call|>", json_behind("<|tool_call|>", "<|/tool_call|>")),
        ("functools", json_behind("functools")),
    ),
    _list("<|tool_call|>", "<|/tool_call|>"),
    controls=("<|/tool_call|>",),
)
GRANITE_3 = ToolFormat(
    "granite-3",
    (json_list("<|tool_call|>["), json_list("<tool_call>[")),
    (
        ("<|tool_call|>", json_behind("<|tool_call|>")),
        ("<tool_call>", json_behind("<tool_call>", "</tool_call>")),
    ),
    _list("<|tool_call|>"),
)
LLAMA_3 = ToolFormat(
    "llama-3",
    (
        bare_object("parameters"),
        CallSyntax(
            "<|python_tag|>",
            '<|python_tag|>{"name": "',
            '", "parameters": ',
            Notation.JSON,
            "}",
            '; {"name": "',
        ),
    ),
    (("<|python_tag|>", json_behind("<|python_tag|>", several=True)),),
    _llama,
    at_start=_BARE,
)
# For templates that know no tools: what most models have seen most of. Small ones leave the tags
# out, so an answer that is a call and nothing else is one, too.
GENERIC = ToolFormat(
    "generic",
    (json_in_tags(), bare_object("arguments")),
    ((tags.TOOL_CALL, tags.tool_call_tag),),
    _each("<tool_call>\n", "\n</tool_call>"),
    at_start=_BARE,
    controls=(tags.TOOL_CALL_END,),
)

# Each with the marks of which a template has all, or a vocabulary the first; the first row wins.
_MARKS: tuple[tuple[ToolFormat, tuple[str, ...]], ...] = (
    (GEMMA_4, ("<|tool_call>",)),
    (FUNCTION_GEMMA, ("<start_function_call>",)),
    (LFM2, (CALLS,)),
    (DEEPSEEK, (tags.DEEPSEEK_CALLS,)),
    (HARMONY, ("<|channel|>commentary", "functions.")),
    (MISTRAL, (tags.TOOL_CALLS,)),
    (FUNCTIONARY_2, (">>>all",)),
    (QWEN_CODER, (tags.FUNCTION, "<parameter=")),
    (FUNCTIONARY_1, (tags.FUNCTION,)),
    (HERMES, (tags.TOOL_CALL,)),
    (GRANITE_3, ("<|tool_call|>", "available_tools")),
    (PHI_4, ("<|tool_call|>",)),
    (LLAMA_3, ("ipython", '"parameters": ')),
)
FORMATS = (*(row for row, _ in _MARKS), GENERIC)
_BY_VOCABULARY = (GEMMA_4, FUNCTION_GEMMA, LFM2, PHI_4)  # their marks are no other family's


def find_format(template: str, tokens: Collection[str]) -> ToolFormat:
    """Return the row of a model, by its template's source, else by its vocabulary's tokens."""
    for row, marks in _MARKS:
        if all(mark in template for mark in marks):
            return row
    for row, marks in _MARKS:
        if row in _BY_VOCABULARY and marks[0] in tokens:
            return row
    return GENERIC
