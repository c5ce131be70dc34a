"""Finding special tokens in text: which parts of a text are tokens by name, which are plain text.

User-defined tokens are found in any text. Control and unknown tokens are found only where the
caller asks for it, because a user who types ``<|im_end|>`` must not end the turn. A control token
of one character is never found: it could not be told from text. The longest token wins.
Which tokens a message of a chat must not contain, user-defined ones among them, is
``content_guard.py``'s.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from os.path import commonprefix

from llamad.text.vocabulary import TokenType, Vocabulary

_MAX_TREE_DEPTH = 50


def alternation(texts: Iterable[str]) -> str:
    """Return a regular expression that matches any of ``texts``, the longest that it can.

    A tree of their common beginnings: what a text costs does not depend on how many tokens begin
    with ``<|``.
    """
    distinct = sorted(set(texts))
    return _tree(distinct, _MAX_TREE_DEPTH) if distinct else ""


def _tree(texts: list[str], depth: int) -> str:
    """Return the expression for distinct texts in order, at most ``depth`` groups deep."""
    if depth == 0:
        longest_first = sorted(texts, key=len, reverse=True)
        return f"(?:{'|'.join(re.escape(text) for text in longest_first)})"
    branches = []
    for _, group in groupby((text for text in texts if text), key=itemgetter(0)):
        ends = list(group)
        head = commonprefix(ends)  # noqa: RUF071 - texts, no paths
        tails = [end[len(head) :] for end in ends]
        branches.append(re.escape(head) + ("" if tails == [""] else _tree(tails, depth - 1)))
    return f"(?:{'|'.join(branches)}){'' if texts[0] else '?'}"


class SpecialTokens:
    """The tokens of one vocabulary that are matched as a whole before the rest is tokenized."""

    def __init__(self, vocabulary: Vocabulary, surface: Callable[[str], str] = str) -> None:
        """``surface`` turns a user-defined token of the vocabulary into the text it matches."""
        tokens = vocabulary.tokens
        user = {
            surface(tokens[i]): i for i in vocabulary.ids_of(TokenType.USER_DEFINED) if tokens[i]
        }
        control = {
            tokens[i]: i
            for i in vocabulary.ids_of(TokenType.CONTROL, TokenType.UNKNOWN)
            if len(tokens[i]) > 1
        }
        self.control_texts = frozenset(control)
        self.user_texts = frozenset(user)
        self._ids = user | control
        self._user_pattern = _pattern(user)
        self._all_pattern = _pattern(self._ids)

    def split(self, text: str, parse_special: bool) -> Iterator[str | int]:
        """Return the ids of special tokens and the non-empty plain text between them, in order."""
        return self._cut(text, self._all_pattern if parse_special else self._user_pattern)

    def splitter(self, texts: Iterable[str]) -> Callable[[str], Iterator[str | int]]:
        """Return a ``split`` that finds these tokens only."""
        pattern = _pattern(texts)
        return lambda text: self._cut(text, pattern)

    def _cut(self, text: str, pattern: re.Pattern[str] | None) -> Iterator[str | int]:
        position = 0
        for match in pattern.finditer(text) if pattern else ():
            if match.start() > position:
                yield text[position : match.start()]
            yield self._ids[match[0]]
            position = match.end()
        if position < len(text):
            yield text[position:]


def _pattern(texts: Iterable[str]) -> re.Pattern[str] | None:
    expression = alternation(texts)
    return re.compile(expression) if expression else None
