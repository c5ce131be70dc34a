"""Where DRY's repetitions end: texts that none of them reaches across.

A breaker is looked for in the bytes of the completion, so it may begin in one token and end in
another. Text that lies before the first token that was pushed counts as absent.
"""

from collections.abc import Callable, Iterable


class SequenceBreakers:
    """The breakers of one sequence, told its tokens in their order."""

    def __init__(self, texts: Iterable[str], piece: Callable[[int], bytes]) -> None:
        """piece: the bytes of a token. An empty text is no breaker."""
        self._breakers = [text.encode() for text in texts if text]
        self._piece = piece
        self._n_kept = max(map(len, self._breakers), default=1) - 1
        self._tail = b""  # the last bytes, in which a breaker may have begun

    def push(self, token: int) -> bool:
        """Add a token; return whether a breaker ends in it."""
        text = self._tail + self._piece(token)
        begin = len(self._tail)
        self._tail = text[len(text) - self._n_kept :] if self._n_kept < len(text) else text
        return any(
            text.find(breaker, max(0, begin - len(breaker) + 1)) >= 0 for breaker in self._breakers
        )
