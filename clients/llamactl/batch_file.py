"""The two files of ``llamactl batch``: rows of questions, and answers in the same order.

Owns their formats. A row is one JSON object a line: ``prompt`` or ``messages``, ``id`` if it wants
one, and options of the client library. An answer is ``id``, ``text`` or ``error``,
``finish_reason`` and ``usage``. The answers that are there say how far a run before this one came.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from llamad_client import Failed, Refused
from llamad_client.request import Options, submit_request

Question = str | Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Row:
    """One question. number: of its line, from 1. prompt: a text only where texts are continued."""

    number: int
    id: Any
    prompt: Question
    options: Options


def read_rows(path: Path, options: Options, *, system: str | None, raw: bool) -> list[Row]:
    """Return all rows of a file, each with what it says over ``options``.

    Raises Refused that names the line and the field, before anything is asked.
    """
    rows = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    rows.append(_row(f"{path}, line {number}", number, line, options, system, raw))
    except OSError as error:
        raise Refused("INPUT_UNREADABLE", f"{path}: {error.strerror}") from None
    return rows


def _row(
    where: str, number: int, line: bytes, options: Options, system: str | None, raw: bool
) -> Row:
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Refused("INVALID_ROW", f"{where}: is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise Refused("INVALID_ROW", f"{where}: is no JSON object")
    row_id = given.pop("id", number)
    prompt, messages = given.pop("prompt", None), given.pop("messages", None)
    if (prompt is None) == (messages is None):
        raise Refused("INVALID_ROW", f"{where}: give prompt or messages, one of them")
    if messages is not None and not isinstance(messages, list):
        raise Refused("INVALID_ROW", f"{where}: messages: is no list")
    if not all(isinstance(message, dict) for message in messages or ()):
        raise Refused("INVALID_ROW", f"{where}: messages: one is no object")
    question: Any = messages
    if prompt is not None:
        if not isinstance(prompt, str) or not prompt:
            raise Refused("INVALID_ROW", f"{where}: prompt: is no text, or empty")
        question = prompt if raw else [{"role": "user", "content": prompt}]
        if system is not None and not raw:
            question.insert(0, {"role": "system", "content": system})
    own = cast(Options, {**options, **given})
    try:
        submit_request(question, False, "", own)
    except Refused as error:
        raise Refused(error.reason, f"{where}: {error.message}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        said = f"a message has no {error}" if isinstance(error, KeyError) else str(error)
        raise Refused("INVALID_ROW", f"{where}: {said}") from None
    return Row(number, row_id, question, own)


class Answers:
    """The file of answers: those of an earlier run, and one more line for each ``add``."""

    def __init__(self, path: Path) -> None:
        """Open the file, or create it; the half line of a run that was killed is taken off.

        Raises Failed.
        """
        self.path = path
        try:
            self._file = path.open("a+b")
            self._file.seek(0)
            self.ids = list(self._read())
        except OSError as error:
            raise self._failed(error) from None

    def _read(self) -> Iterator[Any]:
        """Return the ids of the whole lines."""
        end = 0
        for number, line in enumerate(self._file, 1):
            try:
                if not line.endswith(b"\n"):
                    break
                answer = json.loads(line)
                yield answer["id"]
            except (ValueError, TypeError, KeyError, RecursionError):
                raise Refused(
                    "INVALID_OUTPUT",
                    f"{self.path}, line {number}: is no answer of llamactl batch",
                ) from None
            end += len(line)
        self._file.truncate(end)

    @property
    def is_file(self) -> bool:
        """Whether what is written stays: a pipe or a device keeps nothing."""
        return self.path.is_file()

    def check(self, rows: Sequence[Row]) -> int:
        """Return how many rows have their answer. Raises Refused for answers to other rows."""
        for number, (row_id, row) in enumerate(zip(self.ids, rows, strict=False), 1):
            if row_id != row.id:
                raise Refused(
                    "INVALID_OUTPUT",
                    f"{self.path}, line {number}: answers {row_id!r:.40}, and the question there is"
                    f" {row.id!r:.40}: give another file, or move this one away",
                )
        if len(self.ids) > len(rows):
            raise Refused("INVALID_OUTPUT", f"{self.path}: has more answers than there are rows")
        return len(self.ids)

    def add(self, answer: Mapping[str, Any]) -> None:
        """Append an answer; it is on the disk when this returns. Raises Failed."""
        try:
            self._file.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
            if self.is_file:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> Failed:
        return Failed("OUTPUT_FAILED", f"{self.path}: {error.strerror}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
