"""Answers in the order of their rows, whatever the order in which several services give them.

Owns what came early: answers whose turn in the output is not there yet. They are kept in a file
beside it, ``OUT.jsonl.early``, so that a second run computes none of them again; the file goes when
the last answer is in its place.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from llamactl.batch_file import Answers, Row
from llamad_client import Failed, Refused


class InOrder:
    """Writes to the output as soon as an answer's turn comes."""

    def __init__(self, answers: Answers, rows: Sequence[Row]) -> None:
        """Go on with the rows that have no answer in the output.

        Raises Refused for a file of early answers that is none, Failed where it cannot be read.
        """
        self._answers = answers
        self._rows = rows
        self._n_written = 0
        self._path = answers.path.with_name(answers.path.name + ".early")
        self._early: dict[int, Mapping[str, Any]] = {}  # by the row's number
        if answers.is_file:
            self._read()
            self._write()

    @property
    def n_left(self) -> int:
        """How many rows have no answer yet."""
        return len(self._rows) - self.n_answered

    @property
    def n_answered(self) -> int:
        """How many of the rows have an answer, written or early."""
        return self._n_written + len(self._early)

    def missing(self) -> list[Row]:
        """Return the rows that have none."""
        return [row for row in self._rows[self._n_written :] if row.number not in self._early]

    def add(self, row: Row, answer: Mapping[str, Any]) -> None:
        """Take the answer of a row; it is on the disk when this returns. Raises Failed."""
        answer = {"id": row.id, **answer}
        if row is not self._rows[self._n_written]:
            self._keep(row, answer)
            self._early[row.number] = answer
            return
        self._answers.add(answer)
        self._n_written += 1
        self._write()

    def _write(self) -> None:
        """Write the early answers whose turn it is."""
        while self._early and (answer := self._early.get(self._rows[self._n_written].number)):
            self._answers.add(answer)
            del self._early[self._rows[self._n_written].number]
            self._n_written += 1
        if self._n_written == len(self._rows):
            self._path.unlink(missing_ok=True)

    def _keep(self, row: Row, answer: Mapping[str, Any]) -> None:
        if not self._answers.is_file:
            return
        line = json.dumps({"row": row.number, "answer": answer}, ensure_ascii=False) + "\n"
        try:
            with self._path.open("ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Failed("OUTPUT_FAILED", f"{self._path}: {error.strerror}") from None

    def _read(self) -> None:
        ids = {row.number: row.id for row in self._rows}
        try:
            lines = self._path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Failed("OUTPUT_FAILED", f"{self._path}: {error.strerror}") from None
        if lines and not lines[-1].endswith(b"\n"):  # of a run that was killed
            os.truncate(self._path, sum(map(len, lines[:-1])))
            lines.pop()
        for number, line in enumerate(lines, 1):
            try:
                kept = json.loads(line)
                row, answer = kept["row"], kept["answer"]
                wrong = row in ids and ids[row] != answer["id"]
            except (ValueError, TypeError, KeyError, RecursionError):
                wrong = True
            if wrong:
                raise Refused(
                    "INVALID_OUTPUT",
                    f"{self._path}, line {number}: is no answer to these questions: move it away",
                )
            if row in ids:
                self._early[row] = answer
