"""Keeping control tokens out of what people write in a chat.

A template is rendered as one text and tokenized as one text, or merges across its borders would
come out differently. So that ``<|im_end|>`` in a message stays ten characters, a marker, one
character that occurs in no message, is put inside each occurrence before the template is
rendered. The tokenizer then does not recognize it, and removes the marker
(``Tokenizer.encode_rendered``). Text that a template could complete to a control token, such as a
message that ends in ``<|im_``, is interrupted likewise.
"""

import re
from collections.abc import Iterable
from itertools import pairwise

from llamad.errors import invalid
from llamad.text.special_tokens import alternation

_CANDIDATES = range(0x10FFFD, 0x10F000, -1)  # private use: in no sensible text


def choose_marker(texts: Iterable[str]) -> str:
    """Return a private-use character that occurs in none of ``texts``. Raises INVALID."""
    used = set().union(*texts)
    for code in _CANDIDATES:
        if chr(code) not in used:
            return chr(code)
    raise invalid("messages", f"use all of the {len(_CANDIDATES)} private characters U+10F001..")


class ContentGuard:
    """Interrupts the control tokens of one vocabulary in texts that are not the template's."""

    def __init__(self, control_texts: Iterable[str]) -> None:
        controls = [text for text in control_texts if len(text) > 1]
        self._first_character = re.compile(f"(?=(?:{alternation(controls)})).", re.DOTALL)
        self._enabled = bool(controls)
        self._heads = frozenset(text[:n] for text in controls for n in range(1, len(text)))
        self._tails = frozenset(text[n:] for text in controls for n in range(1, len(text)))
        self._longest = max((len(text) for text in controls), default=0)

    def guard(self, content: str, marker: str) -> str:
        """Return ``content`` with ``marker`` wherever a control token is, or may come to be.

        White space at both ends stays outermost, so templates that strip it still do.
        """
        core = content.strip()
        if not self._enabled or not core:
            return content
        start = len(content) - len(content.lstrip())
        head, tail = content[:start], content[start + len(core) :]
        cuts = {match.end() for match in self._first_character.finditer(core)}
        for length in range(1, min(self._longest, len(core) + 1)):
            if core[:length] in self._tails:
                cuts.add(0)
            if core[-length:] in self._heads:
                cuts.add(len(core) - length + 1)
        borders = [0, *sorted(cuts), len(core)]
        pieces = (core[a:b] for a, b in pairwise(borders))
        return head + marker.join(pieces) + tail
