"""Tools, calls and their results in a conversation, as a chat template takes them.

Templates differ in what they know: some print tools but no calls, some take arguments as an object
and some as text, many know nothing of tools. So a template is asked once, with a trial of each
kind, and what it does not know is written into the messages as text, in the model's own format.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamad.errors import ErrorKind, LlamadError
from llamad.text.tools.call import Call, Tool, Tools
from llamad.text.tools.formats import GENERIC, ToolFormat
from llamad.text.tools.splitter import CallSplitter

Message = Mapping[str, Any]
# Renders messages with tools; raises the LlamadError of a template that refuses or fails.
Run = Callable[[Sequence[Message], Sequence[Mapping[str, Any]] | None], str]

_THOUGHTS = ("reasoning_content", "thinking")  # of most templates; of gpt-oss's and LFM2.5's
_TOOL, _CALL, _KEY, _VALUE, _RESULT = "thetool", "thecall", "thekey", "thevalue", "theresult"
_ASKED = "theuserasks"
_SYSTEM = {"role": "system", "content": "s"}
_SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")

_INSTRUCTION = """\
# Tools

You may call functions to help with the user's request. These are the functions:
<tools>
{tools}
</tools>

To call one, answer with its name and its arguments as JSON within <tool_call></tool_call>:
<tool_call>
{{"name": "function name", "arguments": {{"argument": "value"}}}}
</tool_call>"""


@dataclass(frozen=True, slots=True)
class ToolSupport:
    """What a template does by itself."""

    tools: bool  # prints the tools that it is given
    calls: bool  # prints the calls of an assistant's message
    several: bool  # also more than one of a message
    results: bool  # prints messages of the role tool
    arguments_as_text: bool = False  # wants arguments as JSON text
    no_content: bool = False  # wants None for the content of a message that only calls
    in_system: bool = False  # wants the tools as text in the system message's field "tools"


def ask_template(run: Run, row: ToolFormat) -> tuple[ToolSupport, ToolFormat]:
    """Return what a template does, and the format in which calls are read and written.

    row: the format that its marks promise. Where the template's own calls cannot be read in it, the
    model is told of tools by us, in the generic format. Raises LlamadError UNAVAILABLE when the
    template cannot be run.
    """
    tool = Tool(_TOOL, "d", {"type": "object", "properties": {_KEY: {"type": "string"}}})
    offered: list[Mapping[str, Any]] | None = [tool.declaration()]
    user = {"role": "user", "content": _ASKED}
    in_system = _TOOL in _tried(run, [_with_declarations({**_SYSTEM}, offered or []), user], None)
    if row is GENERIC or not (in_system or _TOOL in _tried(run, [user], offered)):
        row, offered = GENERIC, None
    unread = False
    if offered and not in_system:
        for as_text in (False, True):
            for no_content in (False, True):
                one, two = (
                    _tried(run, _trial(n, as_text=as_text, no_content=no_content), offered)
                    for n in (1, 2)
                )
                if _n_calls_read(one, row) == 1:
                    support = ToolSupport(
                        tools=True,
                        calls=True,
                        several=_n_calls_read(two, row) == 2,
                        results=_RESULT in one,
                        arguments_as_text=as_text,
                        no_content=no_content,
                    )
                    return support, row
                if f"{_CALL}0" in one and _VALUE in one:  # in a format that we do not know
                    unread = True
        if unread:
            row, offered = GENERIC, None
    answered = [user, {"role": "assistant", "content": "a"}, _result(0)]
    support = ToolSupport(
        tools=bool(offered),
        calls=False,
        several=False,
        results=_RESULT in _tried(run, answered, None if in_system else offered),
        in_system=bool(offered) and in_system,
    )
    return support, row


def _with_declarations(system: Message, tools: Sequence[Mapping[str, Any]]) -> Message:
    """Return a system message with the tools as text, as Phi-4-mini's template wants them."""
    functions = [tool["function"] for tool in tools]
    return {**system, "tools": json.dumps(functions, ensure_ascii=False)}


def _tried(run: Run, messages: Sequence[Message], tools: Any) -> str:
    try:
        return run(messages, tools)
    except LlamadError as error:
        if error.kind is ErrorKind.UNAVAILABLE:
            raise
        return ""


def _trial(n: int, *, as_text: bool, no_content: bool) -> list[Message]:
    arguments: Any = {_KEY: _VALUE}
    if as_text:
        arguments = json.dumps(arguments)
    calls = [_as_called(f"call0000{i}", f"{_CALL}{i}", arguments) for i in range(n)]
    content = None if no_content else ""
    return [
        {"role": "user", "content": _ASKED},
        {"role": "assistant", "content": content, "tool_calls": calls},
        *(_result(i) for i in range(n)),
    ]


def _result(i: int) -> Message:
    return {
        "role": "tool",
        "content": _RESULT,
        "tool_call_id": f"call0000{i}",
        "name": f"{_CALL}{i}",
    }


def _n_calls_read(text: str, row: ToolFormat) -> int:
    """Return how many calls of the trial can be read in what the template made of it."""
    answer = text[text.find(_ASKED) + len(_ASKED) :]
    tools = Tools([Tool(f"{_CALL}{i}") for i in range(2)])
    for mark, _ in row.at_start:  # which follow the head of the turn, and the end of it follows
        begin, end = answer.find(mark), answer.rfind("}")
        if 0 <= begin < end:
            answer = answer[begin : answer.find("}}") + 2]
    splitter = CallSplitter(row, tools)
    parts = [*splitter.push(answer), *splitter.flush()]
    calls = [part for part in parts if isinstance(part, Call)]
    expected = [Call(f"{_CALL}{i}", {_KEY: _VALUE}) for i in range(len(calls))]
    return len(calls) if [Call(c.name, c.arguments) for c in calls] == expected else 0


def _as_called(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"type": "function", "id": call_id, "function": function}


def with_tools(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    support: ToolSupport,
    row: ToolFormat,
) -> tuple[list[Message], list[Mapping[str, Any]] | None]:
    """Return messages and tools as the template takes them.

    messages: as ``ChatTemplate.render`` takes them. tools: their declarations.
    """
    plain = list(_written(_identified(messages, row), support, row))
    if not tools:
        return plain, None
    if support.in_system:
        first = plain.pop(0) if plain[0]["role"] == "system" else {"role": "system", "content": ""}
        return [_with_declarations(first, tools), *plain], None
    if not support.tools:
        return _instructed(plain, tools), None
    return plain, list(tools)


def _identified(messages: Sequence[Message], row: ToolFormat) -> Iterator[Message]:
    """Yield the messages with an id for each call, and for each result the call's id and name."""
    n_calls = 0
    waiting: list[tuple[str, str]] = []  # calls without a result: id and name
    for message in messages:
        if calls := message.get("tool_calls"):
            waiting, named = [], []
            for call in calls:
                call_id = _fitting(call.get("id") or f"call{n_calls:05}", row)
                n_calls += 1
                waiting.append((call_id, call["name"]))
                named.append({**call, "id": call_id})
            yield {**message, "tool_calls": named}
        elif message["role"] == "tool":
            given, name = message.get("tool_call_id"), message.get("tool_name")
            call_id = _fitting(given, row) if given else ""
            found = next(
                (
                    one
                    for one in waiting
                    if (one[0] == call_id if call_id else name in (None, "", one[1]))
                ),
                (call_id or f"call{n_calls:05}", name or ""),
            )
            if found in waiting:
                waiting.remove(found)
            yield {**message, "tool_call_id": found[0], "tool_name": name or found[1]}
        else:
            yield message


def _fitting(call_id: str, row: ToolFormat) -> str:
    if row.short_ids and not _SHORT_ID.fullmatch(call_id):
        return hashlib.sha256(call_id.encode()).hexdigest()[:9]
    return call_id


def _written(
    messages: Iterator[Message], support: ToolSupport, row: ToolFormat
) -> Iterator[Message]:
    """Yield the messages with what the template does not know as text."""
    pending: list[Message] = []  # results that go into one message of the user's
    for message in _one_call_each(messages) if not support.several else messages:
        if message["role"] == "tool" and not support.results:
            pending.append(message)
            continue
        if pending:
            text = "\n".join(_response(one) for one in pending)
            pending = []
            if message["role"] == "user":  # two messages of the user in a row are refused by some
                message = {**message, "content": f"{text}\n\n{message['content']}"}
            else:
                yield {"role": "user", "content": text}
        yield _one(message, support, row)
    if pending:
        yield {"role": "user", "content": "\n".join(_response(one) for one in pending)}


def _one_call_each(messages: Iterator[Message]) -> Iterator[Message]:
    """Yield the messages with a message for each call, followed by its result."""
    split: list[Message] = []

    calling: Message | None = None
    for message in messages:
        if calling is not None and message["role"] == "tool":
            split.append(message)
            continue
        if calling is not None:
            yield from _spread(calling, split)
            calling, split = None, []
        if len(message.get("tool_calls", ())) > 1:
            calling = message
        else:
            yield message
    if calling is not None:
        yield from _spread(calling, split)


def _spread(calling: Message, results: Sequence[Message]) -> Iterator[Message]:
    left = list(results)
    for i, call in enumerate(calling["tool_calls"]):
        first = calling if i == 0 else {"role": "assistant", "content": ""}
        yield {**first, "tool_calls": [call]}
        for result in [one for one in left if one["tool_call_id"] == call["id"]]:
            yield result
            left.remove(result)
    yield from left


def _response(message: Message) -> str:
    return f"<tool_response>\n{message['content']}\n</tool_response>"


def _one(message: Message, support: ToolSupport, row: ToolFormat) -> Message:
    """Return a message with the names of its parts that templates read."""
    result: dict[str, Any] = {"role": message["role"], "content": message["content"]}
    thoughts = message.get("thinking", "")
    if row.thoughts_with_calls and message.get("tool_calls"):
        thoughts = "\n\n".join(filter(None, (thoughts, result["content"])))
        result["content"] = ""
    if thoughts:
        result |= dict.fromkeys(_THOUGHTS, thoughts)
    if message["role"] == "tool":
        result["tool_call_id"] = message["tool_call_id"]
        if message["tool_name"]:
            result["name"] = message["tool_name"]
    calls = message.get("tool_calls")
    if not calls:
        return result
    if not support.calls:
        written = row.write([Call(call["name"], call["arguments"]) for call in calls])
        content = result["content"]
        result["content"] = f"{content}\n{written}" if content else written
        return result
    if support.no_content and not result["content"]:
        result["content"] = None
    result["tool_calls"] = [
        _as_called(
            call["id"],
            call["name"],
            json.dumps(call["arguments"], ensure_ascii=False)
            if support.arguments_as_text
            else call["arguments"],
        )
        for call in calls
    ]
    return result


def _instructed(messages: list[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Return the messages with the tools in the system message, which is made if there is none."""
    lines = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    text = _INSTRUCTION.format(tools=lines)
    if messages[0]["role"] != "system":
        return [{"role": "system", "content": text}, *messages]
    first = {**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}
    return [first, *messages[1:]]
