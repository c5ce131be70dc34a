"""Running a chat template in a process of its own, with bounds on time, memory and output.

The service never parses, compiles or runs a template: ``template_program.py`` does, in a process
that is started once for a template, reused, killed when it overruns, and started again by the next
request. One request at a time; it blocks the calling thread, with the GIL released.

The process shares nothing with the service but a socket, and ends when that is closed, so with
the service, however it dies.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Never, TypeVar

from llamad.errors import ErrorKind, LlamadError, invalid
from llamad.printable import printable

MAX_OUTPUT_CHARACTERS = 4 << 20
MAX_BYTES = 256 << 20  # of addresses, of which the interpreter has 25 MiB

_PROGRAM = Path(__file__).with_name("template_program.py")
_START_SECONDS = 30.0  # an interpreter and jinja2 from a cold, slow card
_REQUEST_SECONDS = 1.2  # of its own processor time; an ordinary chat takes a thousandth of it
_MAX_ANSWER_BYTES = 4 * MAX_OUTPUT_CHARACTERS + 4096
_KEPT_ENVIRONMENT = ("LD_LIBRARY_PATH", "TZ")
_RETRY_SECONDS = 2.0
# By which a template may end its own process: a stack or a limit that it exceeds. Any other comes
# from outside: somebody's kill, or the kernel's when memory is short.
_OWN_SIGNALS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGXCPU})

T = TypeVar("T")


BROKEN = "CHAT_TEMPLATE_INVALID"  # it does not compile, or takes more than it may
FAILED = "CHAT_TEMPLATE_FAILED"  # on one chat


def template_error(message: str) -> LlamadError:
    """Return the error for a template that is broken; the message begins with its key."""
    return LlamadError(ErrorKind.CORRUPT, BROKEN, f"tokenizer.chat_template: {message}")


class TemplateProcess:
    """One template and the process that runs it. Any thread may use it."""

    def __init__(self, source: str) -> None:
        """Compile the template. Raises what ``render`` raises for a broken one."""
        self._source = source
        self._lock = threading.Lock()
        self._child: _Child | None = None
        with self._lock:
            _twice(self._started)

    def render(self, variables: Mapping[str, Any]) -> str:
        """Return the template's output for variables of JSON's types.

        Raises LlamadError: INVALID when the template refuses the messages, fails on them (FAILED)
        or takes too much (BROKEN): with others it may do. UNAVAILABLE when no process can
        be had, or when it is killed from outside twice.
        """
        with self._lock:
            try:
                answer = _twice(lambda: self._ask(self._started(), {"variables": variables}))
            except LlamadError as error:
                if error.kind is ErrorKind.CORRUPT:
                    raise LlamadError(ErrorKind.INVALID, error.reason, error.message) from None
                raise
        text = answer.get("text")
        if not isinstance(text, str) or len(text) > MAX_OUTPUT_CHARACTERS:
            raise LlamadError(
                ErrorKind.INVALID, FAILED, "messages: the chat template gives no text"
            )
        return text

    def close(self) -> None:
        """End the process. A later ``render`` would start another."""
        with self._lock:
            self._end()

    def _started(self) -> "_Child":
        """Return the process with the template compiled; start one where none lives."""
        if self._child is not None and self._child.process.poll() is None:
            return self._child
        self._end()
        self._child = child = _start()
        self._ask(child, {"source": self._source})
        return child

    def _end(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def _ask(self, child: "_Child", request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            answer = child.ask(request)
        except TimeoutError:
            self._end()
            raise template_error(f"runs longer than {_REQUEST_SECONDS} s") from None
        except (OSError, ValueError) as error:
            self._end()
            status = child.process.returncode
            if isinstance(error, OSError) and status < 0 and -status not in _OWN_SIGNALS:
                raise _KilledError(f"it was killed by {_signal_name(-status)}") from None
            raise template_error(f"its process ended with status {status}: {error}") from None
        if "refused" in answer:
            _refuse(str(answer["refused"]))
        if "exhausted" in answer:
            self._end()
        if "error" in answer and "variables" in request:
            message = f"messages: the model's chat template fails on them: {answer['error']}"
            raise LlamadError(ErrorKind.INVALID, FAILED, printable(message))
        for key in ("error", "exhausted"):
            if key in answer:
                raise template_error(printable(str(answer[key])))
        return answer


class _KilledError(Exception):
    """Somebody outside, or the kernel, killed the process: that is no fault of the template."""


def _twice(function: Callable[[], T]) -> T:
    """Return what the function returns, at once or after a kill. Raises UNAVAILABLE for two."""
    try:
        return function()
    except _KilledError:
        pass
    try:
        return function()
    except _KilledError as error:
        raise _unavailable(error) from None


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _refuse(message: str) -> Never:
    raise invalid("messages", f"refused by the model's chat template: {printable(message)}")


class _Child:
    """A process and the socket to it. Ends when it is forgotten, at the latest."""

    def __init__(self, process: "subprocess.Popen[bytes]", connection: socket.socket) -> None:
        self.process = process
        self._connection = connection
        # When a request has had its time: by its processor time, and by the clock on a busy machine
        self._cpu_limit = self._latest = 0.0
        self.end = weakref.finalize(self, _end, process, connection)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer. Raises TimeoutError; OSError or ValueError when there is none."""
        body = json.dumps(request, ensure_ascii=False).encode("utf-8", "surrogatepass")
        now = time.monotonic()
        deadline, self._latest = now + _REQUEST_SECONDS, now + _START_SECONDS
        self._cpu_limit = self._cpu_seconds() + _REQUEST_SECONDS
        self._connection.settimeout(_START_SECONDS)
        self._connection.sendall(len(body).to_bytes(4, "little") + body)
        return self.answer(deadline)

    def answer(self, deadline: float) -> dict[str, Any]:
        """Return the next answer, at the latest at ``deadline``, of the monotonic clock."""
        size = int.from_bytes(self._receive(4, deadline), "little")
        if size > _MAX_ANSWER_BYTES:
            raise ValueError(f"an answer of {size} bytes, limit {_MAX_ANSWER_BYTES}")
        body = self._receive(size, deadline).decode("utf-8", "surrogatepass")
        answer: dict[str, Any] = json.loads(body)
        return answer

    def _owed_seconds(self) -> float:
        """Return the time that a busy machine has not given it for the request; 0: it had all."""
        if time.monotonic() >= self._latest:
            return 0.0
        owed = self._cpu_limit - self._cpu_seconds()
        return max(owed, 0.01) if owed > 0 else 0.0

    def _cpu_seconds(self) -> float:
        """Return the processor time that it has used (proc(5), stat)."""
        try:
            stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii")
        except OSError:
            return 0.0
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def _receive(self, size: int, deadline: float) -> bytearray:
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            left = deadline - time.monotonic()
            if left <= 0 and (left := self._owed_seconds()) <= 0:
                raise TimeoutError
            self._connection.settimeout(left)
            try:
                count = self._connection.recv_into(rest)
            except TimeoutError:
                continue
            if count == 0:
                raise ConnectionError("it closed its socket")
            rest = rest[count:]
        return data


def _start() -> _Child:
    """Start the process and wait until it is ready. Raises UNAVAILABLE."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-I", str(_PROGRAM), str(MAX_BYTES), str(MAX_OUTPUT_CHARACTERS)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ},
            )
    except OSError as error:
        ours.close()
        raise _unavailable(error) from None
    child = _Child(process, ours)
    try:
        child.answer(time.monotonic() + _START_SECONDS)
    except (OSError, ValueError) as error:
        child.end()
        raise _unavailable(error or type(error).__name__) from None
    return child


def _unavailable(cause: object) -> LlamadError:
    return LlamadError(
        ErrorKind.UNAVAILABLE,
        "TEMPLATE_PROCESS_FAILED",
        f"no process for the chat template: {cause}",
        retry_after_seconds=_RETRY_SECONDS,
    )


def _end(process: "subprocess.Popen[bytes]", connection: socket.socket) -> None:
    connection.close()
    process.kill()
    process.wait()
