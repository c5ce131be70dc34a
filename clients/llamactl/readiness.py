"""Waiting until the service answers, for ``--wait`` and for ``use``.

Owns what is worth waiting for and how long. The service has no call that waits for a model, so its
status is asked again, a few times a second.
"""

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from llamactl.output import print_note
from llamactl.progress_line import ProgressLine
from llamad_client import (
    Client,
    ClientError,
    Failed,
    NoPermission,
    ServiceUnreachable,
    Status,
    StillLoading,
    UsedModel,
)

WAIT_SECONDS = 600.0  # a card of 40 MB/s reads 24 GB
ASK_EVERY_SECONDS = 0.25
_PASSING = ("loading", "stopping")
_UNUSABLE = ("no_model", "failed")


class Waiting:
    """What a user sees while a program waits: one line that is replaced, or one note in all."""

    def __init__(self, *, as_json: bool) -> None:
        self._line = ProgressLine()
        self._as_json = as_json
        self._begun = time.monotonic()
        self._told = False

    def tell(self, text: str) -> None:
        """Say what is waited for."""
        if self._line.visible and not self._as_json:
            self._line.show(f"{text} ({time.monotonic() - self._begun:.0f} s)")
        elif not self._told:
            print_note(text, as_json=self._as_json)
        self._told = True

    def erase(self) -> None:
        """Remove the line from the terminal."""
        self._line.erase()


def wait_until_ready(
    status: Callable[[], Status],
    tell: Callable[[str], None],
    *,
    needs_model: bool = True,
    seconds: float = WAIT_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Return when the service has a model that answers, or answers itself if none is needed.

    Raises what keeps it from that: at once where waiting does not help (no permission, no model, a
    model that failed), else after ``seconds``.
    """
    end = clock() + seconds
    while True:
        problem = _problem(status, needs_model=needs_model)
        if problem is None:
            return
        if not isinstance(problem, ServiceUnreachable) or isinstance(problem, NoPermission):
            raise problem
        if clock() >= end:
            waited = f"{problem.message}; waited {seconds:.0f} s"
            raise type(problem)(problem.reason, waited)
        tell(f"waiting: {problem.message}")
        sleep(ASK_EVERY_SECONDS)


def _problem(status: Callable[[], Status], *, needs_model: bool) -> ClientError | None:
    """Return why the service cannot answer now, None when it can."""
    try:
        now = status()
    except ServiceUnreachable as error:
        return error
    if now.state in _PASSING:
        return StillLoading("MODEL_LOADING", f"the service is {now.state}: {now.detail}")
    if needs_model and now.state in _UNUSABLE:
        return Failed("NOT_SERVING", f"the service cannot answer: {now.detail}")
    return None


def use_model(client: Client, name: str, *, as_json: bool) -> UsedModel:
    """Load a model and show on a terminal what the service does meanwhile; see Client.use_model."""
    waiting = Waiting(as_json=as_json)
    if as_json or not ProgressLine().visible:
        return client.use_model(name)
    outcome: SimpleQueue[tuple[bool, Any]] = SimpleQueue()

    def call() -> None:
        try:
            outcome.put((True, client.use_model(name)))
        except BaseException as error:
            outcome.put((False, error))

    Thread(target=call, name="use", daemon=True).start()
    try:
        while True:
            try:
                returned, value = outcome.get(timeout=ASK_EVERY_SECONDS)
                break
            except Empty:
                waiting.tell(_detail(client, name))
    finally:
        waiting.erase()
    if returned:
        return value  # type: ignore[no-any-return]
    raise value


def _detail(client: Client, name: str) -> str:
    """Return what the service says it is doing."""
    try:
        return client.status().detail
    except ClientError:
        return f"loading {name}"
