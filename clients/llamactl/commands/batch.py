"""``llamactl batch``: many questions of a file, the answers in another, in the same order.

Each row is a submitted job whose key is made of the row, so whatever is killed (this command, the
service, the machine), the same command goes on: an answer that was computed is read, a job that
runs is waited for, and nothing is asked twice. Several services take rows from one queue, each as
fast as it answers; the rows of one that is gone go to the others, until it is back.
"""

import argparse
import contextlib
from pathlib import Path
from queue import SimpleQueue

from llamactl import sampling
from llamactl.batch_file import Answers, read_rows
from llamactl.batch_order import InOrder
from llamactl.batch_queue import RowQueue
from llamactl.batch_worker import Answered, Away, Outcome, Worker
from llamactl.commands import Commands
from llamactl.exit_codes import FAILED
from llamactl.output import counted, print_error, print_json, print_note
from llamactl.progress_line import ProgressLine
from llamad_client import Client, ClientError, each_address

DEFAULT_PARALLEL = 8
MOST_PARALLEL = 64


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = commands.add_parser(
        "batch",
        usage="%(prog)s [FLAG]... IN.jsonl OUT.jsonl",
        help="answer many questions of a file",
        description='Answer the questions of a file, one JSON object a line: {"prompt": "..."} or'
        ' {"messages": [...]}, with "id" and options like "temperature" where wanted. The answers'
        " are lines of OUT.jsonl in the same order. After an interruption the same command goes on"
        " where it was; a row that the service refuses has an error in place of its text. Several"
        " services (--socket A,B) share the rows.",
    )
    sampling.add_flags(parser, with_answer=False)
    parser.add_argument("--raw", action="store_true", help="continue the prompts as they are")
    parser.add_argument(
        "--parallel",
        type=_parallel,
        default=DEFAULT_PARALLEL,
        metavar="N",
        help=f"questions in a queue at a time; 1 to {MOST_PARALLEL}, default {DEFAULT_PARALLEL}",
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
    addresses = each_address(arguments.socket)
    with Answers(arguments.output) as answers, contextlib.ExitStack() as clients:
        left = InOrder(answers, rows[answers.check(rows) :])
        n_done = len(rows) - left.n_left
        n_failed = 0
        if left.n_left:
            connected = [clients.enter_context(Client(address)) for address in addresses]
            batch = _Batch(left, len(rows), as_json=arguments.json)
            batch.run(connected, arguments.parallel, str(answers.path.resolve()))
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
    """What the workers tell, written to the output and to the terminal."""

    def __init__(self, left: InOrder, n_rows: int, *, as_json: bool) -> None:
        self.n_failed = 0
        self._left = left
        self._n_rows = n_rows
        self._as_json = as_json
        self._line = ProgressLine()

    def run(self, clients: list[Client], n_queued: int, name: str) -> None:
        """Let the services answer. Raises why the last of them takes no more part."""
        rows = RowQueue(self._left.missing())
        outcomes: SimpleQueue[Outcome] = SimpleQueue()
        working = dict(enumerate(clients))
        for number, client in working.items():
            Worker(number, client, rows, outcomes.put, n_queued=n_queued, batch=name).start()
        try:
            while self._left.n_left:
                self._show()
                outcome = outcomes.get()
                if isinstance(outcome, Answered):
                    self._take(outcome)
                    continue
                where = f"{clients[outcome.worker].address}: " if len(clients) > 1 else ""
                if isinstance(outcome, Away):
                    self._note(f"{where}{outcome.error}; waiting for it")
                elif outcome.error is not None:
                    del working[outcome.worker]
                    if not working or not isinstance(outcome.error, ClientError):
                        raise outcome.error
                    self._note(f"{where}{outcome.error}; it takes no part any more")
        finally:
            rows.stop()
            self._line.erase()

    def _take(self, answered: Answered) -> None:
        if answered.refusal is not None:
            self.n_failed += 1
            self._line.erase()
            message = f"row {answered.row.number}: {answered.refusal.message}"
            print_error(answered.refusal.reason, message, as_json=self._as_json)
        self._left.add(answered.row, answered.answer)

    def _note(self, text: str) -> None:
        self._line.erase()
        print_note(text, as_json=self._as_json)

    def _show(self) -> None:
        n_done = self._n_rows - self._left.n_left
        percent = 100 * n_done // self._n_rows
        bar = "#" * (percent // 5)
        failed = f", {self.n_failed} failed" if self.n_failed else ""
        self._line.show(f"[{bar:20}] {n_done}/{self._n_rows} answers{failed}")
