"""Stop strings in text that arrives in pieces.

Plain search in what is held back and what is new: the stop strings of a request are few and short
(``rpc/from_proto.py``), so no matcher with a state of its own is needed.
"""

from collections.abc import Iterable


class StopStrings:
    """Passes text on until a stop string is complete, and holds back what may become one.

    The stop string that is complete first wins; of two complete at the same character, the longer.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        """No stop strings at all pass everything on at once. Raises ValueError for an empty one."""
        self._stops = frozenset(stops)
        if "" in self._stops:
            raise ValueError("a stop string is empty")
        self._held = ""
        self._found: str | None = None

    def push(self, text: str) -> tuple[str, str | None]:
        """Return the text that can be emitted now and the stop string that ended it, if any.

        The stop string itself and what follows it are never emitted; after a match every further
        call returns ("", the same stop string).
        """
        if self._found is not None:
            return "", self._found
        pending = self._held + text
        starts = ((pending.find(stop), stop) for stop in self._stops)
        complete = [(start + len(stop), start, stop) for start, stop in starts if start >= 0]
        if complete:
            _, start, self._found = min(complete)  # the earliest end, then the earliest start
            self._held = ""
            return pending[:start], self._found
        safe = len(pending) - max((_n_begun(pending, stop) for stop in self._stops), default=0)
        self._held = pending[safe:]
        return pending[:safe], None

    def flush(self) -> str:
        """Return the text that was held back; the text has ended. Empty after a match."""
        held, self._held = self._held, ""
        return held


def _n_begun(text: str, stop: str) -> int:
    """Return how many characters at the end of the text may be the beginning of the stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
