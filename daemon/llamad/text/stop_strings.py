"""Stop strings in text that arrives in pieces.

One Knuth-Morris-Pratt matcher for each stop string (1977, SIAM J. Comput. 6(2)): a character
costs a few steps a stop string, however long it is, and however the text was cut into pieces.
"""

from collections.abc import Iterable


class _Matcher:
    """How much of one stop string the text ends with."""

    __slots__ = ("_borders", "matched", "stop")

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.matched = 0  # characters, len(stop) when complete
        self._borders = _borders(stop)

    def advance(self, character: str) -> bool:
        """Take one character of text; return whether the stop string is complete."""
        stop, matched = self.stop, self.matched
        while matched and stop[matched] != character:
            matched = self._borders[matched]
        if stop[matched] == character:
            matched += 1
        self.matched = matched
        return matched == len(stop)


def _borders(stop: str) -> list[int]:
    """Return, for each prefix length, the length of its longest proper border (prefix = suffix)."""
    borders = [0, 0]
    border = 0
    for character in stop[1:]:
        while border and stop[border] != character:
            border = borders[border]
        if stop[border] == character:
            border += 1
        borders.append(border)
    return borders


class StopStrings:
    """Passes text on until a stop string is complete, and holds back what may become one.

    The stop string that is complete first wins; of two complete at the same character, the longer.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        """No stop strings at all pass everything on at once. Raises ValueError for an empty one."""
        unique = sorted(set(stops), key=len, reverse=True)
        if "" in unique:
            raise ValueError("a stop string is empty")
        self._matchers = [_Matcher(stop) for stop in unique]
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
        for end in range(len(self._held), len(pending)):
            character = pending[end]
            complete = [m.stop for m in self._matchers if m.advance(character)]
            if complete:
                self._found, self._held = complete[0], ""
                return pending[: end + 1 - len(complete[0])], complete[0]
        safe = len(pending) - max((m.matched for m in self._matchers), default=0)
        self._held = pending[safe:]
        return pending[:safe], None

    def flush(self) -> str:
        """Return the text that was held back; the text has ended. Empty after a match."""
        held, self._held = self._held, ""
        for matcher in self._matchers:
            matcher.matched = 0
        return held
