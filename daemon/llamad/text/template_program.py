"""The process that runs a chat template: a stranger's program, which came with a model file.

``template_process.py`` starts this file by its path, so it imports jinja2 and the standard library
only. Arguments: bytes of memory, characters of output. Standard input is a socket to the service. A
request and its answer are frames of JSON::

    {"source": text}       -> {}               the template of all later requests
    {"variables": object}  -> {"text": text}   its output
                           -> {"refused": text}, {"error": text}
    either                 -> {"exhausted": text}    memory was short: the last answer

Beside the variables a template has today's date: ``date_string`` (of Llama 3) and ``datetime`` (of
FireFunction) as llama.cpp writes them, and ``strftime_now``.

Jinja's immutable sandbox keeps a template away from Python; the limits of this process bound what
it costs, whatever it computes. The process opens no file and starts no process, ignores what a
terminal or a service manager sends to a whole group, and ends with the other end of its socket.
"""

# ruff: noqa: F401 - no file opens once a template runs: what jinja loads late is loaded here
import encodings.unicode_escape
import gc
import html
import json
import os
import pprint
import resource
import signal
import sys
import textwrap
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Never

import jinja2.constants
import jinja2.debug
from jinja2 import Template, TemplateSyntaxError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

_SOCKET = 0
_CPU_SECONDS = 2  # of one request, should the service not count any more
_MAX_ERROR_CHARACTERS = 400


class _RefusedError(Exception):
    """The template does not accept these messages."""


class _GenerationExtension(Extension):
    """``{% generation %}`` marks what training learns from; here it only encloses."""

    tags = {"generation"}  # noqa: RUF012 - as the base class declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    """What templates are written for: the white space rules and additions of transformers."""

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, _GenerationExtension],
            optimized=False,
            finalize=_unchanged,
        )
        self.filters["tojson"] = _to_json
        self.globals |= {"raise_exception": _refuse, "strftime_now": _strftime_now}

    def unsafe_undefined(self, obj: Any, attribute: str) -> Never:
        """Refuse an attribute that leads out of the sandbox; jinja alone would print nothing."""
        raise SecurityError(f"attribute {attribute!r} of a {type(obj).__name__} is not accessible")


@pass_context
def _unchanged(context: Context, value: Any) -> Any:
    """Return a value of the output; with the context, so that jinja computes none ahead."""
    return value


def _to_json(
    value: Any,
    indent: int | None = None,
    ensure_ascii: bool = False,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON as it is: jinja's own filter escapes it for HTML."""
    return json.dumps(
        value, indent=indent, ensure_ascii=ensure_ascii, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: object) -> Never:
    """Be ``raise_exception`` of a template."""
    raise _RefusedError(str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _dates() -> dict[str, str]:
    """Return the variables of today; a template that has none of them writes a date of its own."""
    now = datetime.now()
    return {"date_string": now.strftime("%d %b %Y"), "datetime": now.strftime("%b %d %Y")}


def _render(template: Template, variables: dict[str, Any], max_characters: int) -> str:
    parts, size = [], 0
    for part in template.generate({**_dates(), **variables}):
        size += len(part)
        if size > max_characters:
            raise OverflowError(f"gives more than {max_characters} characters")
        parts.append(part)
    return "".join(parts)


def _serve(max_memory_bytes: int, max_characters: int) -> None:
    """Answer requests until the service is gone, or memory was short."""
    environment = _Environment()
    template = environment.from_string("")
    while frame := _read_frame():
        used = int(resource.getrusage(resource.RUSAGE_SELF).ru_utime) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (used + _CPU_SECONDS, resource.RLIM_INFINITY))
        answer: dict[str, str] = {}
        try:
            request = json.loads(frame)
            if "source" in request:
                template = environment.from_string(request["source"])
            else:
                answer["text"] = _render(template, request["variables"], max_characters)
        except MemoryError:
            _write_frame({"exhausted": f"needs more than {max_memory_bytes >> 20} MiB"})
            return
        except _RefusedError as error:
            answer["refused"] = str(error)[:_MAX_ERROR_CHARACTERS]
        except TemplateSyntaxError as error:
            answer["error"] = f"line {error.lineno}: {error.message}"[:_MAX_ERROR_CHARACTERS]
        except Exception as error:  # whatever the compiler or the code of a template may raise
            answer["error"] = f"{type(error).__name__}: {error}"[:_MAX_ERROR_CHARACTERS]
        _write_frame(answer)


def _read_frame() -> bytes:
    """Return the next frame's bytes, b"" at the end of the stream. Length first, 4 bytes."""
    return _read(int.from_bytes(_read(4), "little"))


def _read(size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = os.read(_SOCKET, min(size - len(data), 1 << 20))
        if not part:
            return b""
        data += part
    return bytes(data)


def _write_frame(answer: dict[str, str]) -> None:
    body = json.dumps(answer, ensure_ascii=False).encode("utf-8", "surrogatepass")
    data = memoryview(len(body).to_bytes(4, "little") + body)
    while data:
        data = data[os.write(_SOCKET, data) :]


def _limit(max_memory_bytes: int) -> None:
    """Give up what a template has no use for, before the first one comes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    datetime.now().astimezone()  # reads the time zone
    with suppress(OSError):  # when memory is short, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    for kind, limit in (
        (resource.RLIMIT_AS, max_memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(kind, (limit, limit))


def main() -> None:
    """Be ready, then answer."""
    max_memory_bytes, max_characters = (int(argument) for argument in sys.argv[1:])
    gc.freeze()
    _limit(max_memory_bytes)
    with suppress(OSError):  # the service is gone
        _write_frame({})  # ready
        _serve(max_memory_bytes, max_characters)


if __name__ == "__main__":
    main()
