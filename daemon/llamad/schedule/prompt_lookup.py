"""Drafts from the sequence's own n-grams (prompt lookup decoding), checked in one step.

Answers often repeat their prompt: a device list, a quoted sentence, code. When the last three
tokens stood in the sequence before, the tokens that followed them then are guessed to follow now.
The step draws each token as it would without the guess and stops at the first that differs, so the
completion is the same, token for token; a wrong guess costs the rows it took. So it is adaptive:
after too many wrong guesses it pauses. Where rows cost nothing, because a step waits for the disk
longer than it computes, it guesses more and does not pause. Idea: Saxena, "Prompt Lookup Decoding",
2023.
"""

from collections.abc import Iterable

NGRAM = 3  # tokens that must match
MAX_DRAFTS = 4  # tokens guessed at a time, where a row costs
MAX_FREE_DRAFTS = 16  # and where it does not
WINDOW_DRAFTS = 16  # guesses that are judged together
MIN_ACCEPTED = 0.5  # share of them that must have been right
PAUSE_TOKENS = 64  # tokens without a guess after a bad window


class PromptLookup:
    """The n-grams of one sequence and how well guessing from them has gone."""

    def __init__(self, tokens: Iterable[int]) -> None:
        self._tokens: list[int] = []
        self._ends: dict[tuple[int, ...], int] = {}  # n-gram -> position after its last occurrence
        self._previous: int | None = None  # the same for the sequence's own last n-gram, before it
        self._drafted = 0
        self._accepted = 0
        self._pause = 0
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        """Add the sequence's next token."""
        self._tokens.append(token)
        self._pause = max(0, self._pause - 1)
        if len(self._tokens) < NGRAM:
            return
        key = tuple(self._tokens[-NGRAM:])
        self._previous = self._ends.get(key)
        self._ends[key] = len(self._tokens)

    def draft(self, limit: int, *, free: bool = False) -> tuple[int, ...]:
        """Return up to ``limit`` tokens that may come next, none when there is no good guess.

        free: the rows of guesses cost nothing.
        """
        if self._previous is None or limit <= 0 or (self._pause and not free):
            return ()
        n = min(limit, MAX_FREE_DRAFTS if free else MAX_DRAFTS)
        return tuple(self._tokens[self._previous : self._previous + n])

    def judge(self, n_drafted: int, n_accepted: int) -> None:
        """Take note of how many of the guessed tokens were right."""
        self._drafted += n_drafted
        self._accepted += n_accepted
        if self._drafted < WINDOW_DRAFTS:
            return
        if self._accepted < MIN_ACCEPTED * self._drafted:
            self._pause = PAUSE_TOKENS
        self._drafted = self._accepted = 0
