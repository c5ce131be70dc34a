"""``llamactl batch``: many questions of a file, the answers in another, in the same order.

Each row is a submitted job whose key is made of the row, so whatever is killed (this command, the
service, the machine), the same command goes on: an answer that was computed is read, a job that
runs is waited for, and nothing is asked twice.
"""

import argparse
import hashlib
import json
import time
from collections import deque
from pathlib import Path
from typing import Any

from llamactl import sampling
from llamactl.batch_file import Answers, Row, read_rows
from llamactl.commands import Commands
from llamactl.commands.ask import wait
from llamactl.exit_codes import FAILED
from llamactl.output import counted, print_error, print_json, print_note
from llamactl.progress_line import ProgressLine
from llamad_client import Client, ClientError, Failed, Refused, ServiceUnreachable

DEFAULT_PARALLEL = 8
MOST_PARALLEL = 64
_USAGE = ("prompt_tokens", "completion_tokens", "cached_prompt_tokens", "reasoning_tokens")
# Refusals of a service that is not what it was when the command began: they end the command.
_NOT_OF_THE_ROW = frozenset({"NOT_DURABLE", "MODEL_NOT_FOUND", "NO_MODEL", "UNIMPLEMENTED"})


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "batch",
        usage="%(prog)s [FLAG]... IN.jsonl OUT.jsonl",
        help="answer many questions of a file",
        description='Answer the questions of a file, one JSON object a line: {"prompt": "..."} or'
        ' {"messages": [...]}, with "id" and options like "temperature" where wanted. The answers'
        " are lines of OUT.jsonl in the same order. After an interruption the same command goes on"
        " where it was; a row that the service refuses has an error in place of its text.",
    )
    sampling.add_flags(parser, with_answer=False)
    parser.add_argument("--raw", action="store_true", help="continue the prompts as they are")
    parser.add_argument(
        "--parallel",
        type=_parallel,
        default=DEFAULT_PARALLEL,
        metavar="N",
        help=f"questions in the queue at a time; 1 to {MOST_PARALLEL}, default {DEFAULT_PARALLEL}",
    )
    parser.add_argument("input", type=Path, metavar="IN.jsonl")
    parser.add_argument("output", type=Path, metavar="OUT.jsonl")
    parser.set_defaults(run=run)
    return parser


def _parallel(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MOST_PARALLEL:
        raise argparse.ArgumentTypeError(f"{number} is not 1 to {MOST_PARALLEL}")
    return number


def run(arguments: argparse.Namespace) -> int:
    """Answer what has no answer yet; 5 when a row failed."""
    options = sampling.client_options(arguments)
    options.setdefault("priority", "batch")
    rows = read_rows(arguments.input, options, system=arguments.system, raw=arguments.raw)
    with Answers(arguments.output) as answers, Client(arguments.socket) as client:
        n_done = answers.check(rows)
        n_failed = 0
        if n_done < len(rows):
            wait(client, as_json=arguments.json)
            batch = _Batch(client, answers, len(rows), n_done, as_json=arguments.json)
            batch.run(rows[n_done:], arguments.parallel)
            n_failed = batch.n_failed
    summary = {"rows": len(rows), "answered": len(rows) - n_done, "failed": n_failed}
    if arguments.json:
        print_json(summary)
    else:
        print_note(f"{counted(len(rows), 'row')}: {_told(n_done, n_failed)}")
    return FAILED if n_failed else 0


def _told(n_done: int, n_failed: int) -> str:
    parts = ["all have their answer" if not n_failed else f"{n_failed} failed"]
    if n_done:
        parts.append(f"{n_done} had it before")
    return ", ".join(parts)


class _Batch:
    """Some rows in the queue, the answer of the oldest read first."""

    def __init__(
        self, client: Client, answers: Answers, n_rows: int, n_done: int, *, as_json: bool
    ) -> None:
        self.n_failed = 0
        self._client = client
        self._answers = answers
        self._n_rows, self._n_done = n_rows, n_done
        self._as_json = as_json
        self._line = ProgressLine()
        self._jobs: deque[tuple[Row, str]] = deque()  # with the id of its job
        model = client.status().model
        self._name = [str(answers.path.resolve()), "" if model is None else model.name]
        self._refusals: dict[int, ClientError] = {}  # by the row's number

    def run(self, rows: list[Row], parallel: int) -> None:
        """Answer the rows in their order."""
        waiting = deque(rows)
        try:
            while waiting or self._jobs:
                while waiting and len(self._jobs) < parallel and self._submit(waiting[0]):
                    waiting.popleft()
                if self._jobs:
                    self._read(*self._jobs.popleft())
        finally:
            self._line.erase()

    def _submit(self, row: Row) -> bool:
        """Queue a row; return False when the queue is full and older rows have to end first."""
        while True:
            try:
                submitted = self._client.submit(
                    row.prompt, idempotency_key=self._key(row), **row.options
                )
            except ServiceUnreachable as error:
                self._wait(error)
            except Refused as error:
                if error.reason in _NOT_OF_THE_ROW:
                    raise
                if error.retry_after_seconds is None:
                    self._jobs.append((row, ""))
                    self._refusals[row.number] = error
                    return True
                if self._jobs:
                    return False
                self._line.show(error.message)
                time.sleep(min(error.retry_after_seconds, 60.0))
            else:
                self._jobs.append((row, submitted.job.id))
                return True

    def _read(self, row: Row, job_id: str) -> None:
        """Wait for the answer of a row, and write it."""
        self._show()
        refusal = self._refusals.pop(row.number, None)
        while refusal is None:
            try:
                completion = self._client.resume(job_id)
                text = completion.text()
                if completion.result is None:
                    raise Failed("STREAM_ENDED", "the answer ended without its last event")
                if completion.result.finish_reason == "cancelled":
                    raise Failed("CANCELLED", f"job {job_id} was cancelled")
                result = completion.result
                usage = {name: getattr(result, name) for name in _USAGE}
                reason = result.finish_reason
                self._write(row, {"text": text, "finish_reason": reason, "usage": usage})
                return
            except ServiceUnreachable as error:
                self._wait(error)
            except ClientError as error:
                refusal = error
        self.n_failed += 1
        self._line.erase()
        message = f"row {row.number}: {refusal.message}"
        print_error(refusal.reason, message, as_json=self._as_json)
        self._write(row, {"error": {"reason": refusal.reason, "message": refusal.message}})

    def _write(self, row: Row, answer: dict[str, Any]) -> None:
        self._answers.add({"id": row.id, **answer})
        self._n_done += 1
        self._show()

    def _wait(self, error: ServiceUnreachable) -> None:
        """Wait for a service that went away; its jobs go on when it is back."""
        self._line.erase()
        if not self._as_json:
            print_note(f"{error.message}; waiting for it")
        wait(self._client, as_json=self._as_json)

    def _show(self) -> None:
        percent = 100 * self._n_done // self._n_rows
        bar = "#" * (percent // 5)
        failed = f", {self.n_failed} failed" if self.n_failed else ""
        self._line.show(f"[{bar:20}] {self._n_done}/{self._n_rows} answers{failed}")

    def _key(self, row: Row) -> str:
        """Return the key of a row: the same for the same row on its way to the same file."""
        asked = json.dumps([*self._name, row.number, row.prompt, row.options], sort_keys=True)
        return "batch-" + hashlib.sha256(asked.encode()).hexdigest()[:40]
