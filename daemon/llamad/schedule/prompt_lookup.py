"""Drafts from the sequence's own n-grams (prompt lookup decoding), checked in one step.

Answers often repeat their prompt: a device list, a quoted sentence, code. When the last three
tokens stood in the sequence before, the tokens that followed them then are guessed to follow now.
The step draws each token as it would without the guess and stops at the first that differs, so the
completion is the same, token for token; a wrong guess costs the rows it took. Whether that pays is
guesser.py's. Where rows cost nothing, because a step waits for the disk longer than it computes, it
guesses more. Idea: Saxena, "Prompt Lookup Decoding", 2023.
"""

from collections.abc import Iterable

NGRAM = 3  # tokens that must match
MAX_DRAFTS = 4  # tokens guessed at a time, where a row costs
MAX_FREE_DRAFTS = 16  # and where it does not


class PromptLookup:
    """The n-grams of one sequence."""

    def __init__(self, tokens: Iterable[int]) -> None:
        self._tokens: list[int] = []
        self._ends: dict[tuple[int, ...], int] = {}  # n-gram -> position after its last occurrence
        self._previous: int | None = None  # the same for the sequence's own last n-gram, before it
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        """Add the sequence's next token."""
        self._tokens.append(token)
        if len(self._tokens) < NGRAM:
            return
        key = tuple(self._tokens[-NGRAM:])
        self._previous = self._ends.get(key)
        self._ends[key] = len(self._tokens)

    def draft(self, limit: int, *, free: bool = False) -> tuple[int, ...]:
        """Return up to ``limit`` tokens that may come next, none when there is no good guess.

        free: the rows of guesses cost nothing.
        """
        if self._previous is None or limit <= 0:
            return ()
        n = min(limit, MAX_FREE_DRAFTS if free else MAX_DRAFTS)
        return tuple(self._tokens[self._previous : self._previous + n])
