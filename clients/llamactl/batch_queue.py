"""The rows of a batch that wait for a service, and which service has which.

Owns that a row is with one service at a time, and is given to another when its own is gone. Threads
share it; nothing here knows a client.
"""

import threading
from collections.abc import Iterable, Sequence

from llamactl.batch_file import Row


class RowQueue:
    """Rows in their order. A worker is whatever takes them; it is named by a number."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._waiting = sorted(rows, key=_number, reverse=True)  # the next is the last
        self._owners: dict[int, int] = {}  # by the row's number: the worker that has it
        self._n_left = len(rows)
        self._changed = threading.Condition()

    @property
    def is_done(self) -> bool:
        """Whether every row has its answer, or nobody wants one any more."""
        return self._n_left == 0

    def take(self, worker: int, *, wait: bool) -> Row | None:
        """Return the next row, which is the worker's now.

        None where there is none; ``wait`` waits for one, and None then means that all is done.
        """
        with self._changed:
            while not self._waiting:
                if self.is_done or not wait:
                    return None
                self._changed.wait()
            row = self._waiting.pop()
            self._owners[row.number] = worker
            return row

    def give_back(self, rows: Iterable[Row]) -> None:
        """Let others take rows that a worker has and cannot end."""
        with self._changed:
            for row in rows:
                del self._owners[row.number]
                self._waiting.append(row)
            self._waiting.sort(key=_number, reverse=True)
            self._changed.notify_all()

    def belongs_to_another(self, row: Row, worker: int) -> bool:
        """Whether a row that the worker gave back is with another now, or has its answer."""
        with self._changed:
            waits = any(row is one for one in self._waiting)
            return not waits and self._owners.get(row.number) != worker

    def another_works(self, worker: int) -> bool:
        """Whether others have rows."""
        with self._changed:
            return any(owner != worker for owner in self._owners.values())

    def end(self, row: Row) -> None:
        """Note that a row has its answer."""
        with self._changed:
            del self._owners[row.number]
            self._n_left -= 1
            if self.is_done:
                self._changed.notify_all()

    def stop(self) -> None:
        """Let every worker end, with rows left or not."""
        with self._changed:
            self._waiting.clear()
            self._n_left = 0
            self._changed.notify_all()


def _number(row: Row) -> int:
    return row.number
