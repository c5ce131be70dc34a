"""Keeping control tokens and markers out of what people write in a chat.

A template is rendered as one text and tokenized as one text, or merges across its borders would
come out differently. So that ``<|im_end|>`` in a message stays ten characters, a marker, one
character that occurs in no message, is put inside each occurrence before the template is
rendered. ``split`` then does not recognize it, and removes the marker. Text that a template could
complete to a control token, such as a message that ends in ``<|im_``, is interrupted likewise.

Files call markers of turns and tools user-defined, too, so that answers show them; those are found
in any text elsewhere, but not in a message.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

from llamad.errors import invalid
from llamad.text.marker_names import is_marker
from llamad.text.special_tokens import SpecialTokens, alternation

_CANDIDATES = range(0x10FFFD, 0x10F000, -1)  # private use: in no sensible text


def choose_marker(texts: Iterable[str]) -> str:
    """Return a private-use character that occurs in none of ``texts``. Raises INVALID."""
    used = set().union(*texts)
    for code in _CANDIDATES:
        if chr(code) not in used:
            return chr(code)
    raise invalid("messages", f"use all of the {len(_CANDIDATES)} private characters U+10F001..")


class ContentGuard:
    """Interrupts the control tokens and markers of one vocabulary in texts that people write."""

    def __init__(self, special: SpecialTokens, template: str) -> None:
        """``template``: the source; what it writes itself, messages must not."""
        self._special = special
        user = {text for text in special.user_texts if is_marker(text, template)}
        controls = [text for text in special.control_texts | user if len(text) > 1]
        self._split_user = special.splitter(special.user_texts - user)
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

    def split(self, rendered: str, marker: str) -> Iterator[str | int]:
        """Yield the ids of special tokens and the plain text between them, ``marker`` removed.

        Control tokens and markers are found except where ``marker`` interrupts them.
        """
        for part in self._special.split(rendered, parse_special=True):
            if isinstance(part, int):
                yield part
            else:
                yield from self._split_user(part.replace(marker, ""))
