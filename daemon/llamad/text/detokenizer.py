"""Token ids to text as they are generated: whole characters only.

Does not look for stop strings: that is ``stop_strings.py``.
"""

from codecs import getincrementaldecoder

from llamad.text.tokenizer import Tokenizer


class Detokenizer:
    """The text of one growing sequence of ids.

    Invalid UTF-8 becomes U+FFFD as soon as it is known to be invalid, so the pieces joined are what
    ``Tokenizer.decode`` gives for all ids at once.
    """

    def __init__(self, tokenizer: Tokenizer, *, at_start: bool = False) -> None:
        """at_start: the ids begin a text, so a space prefix is dropped; not so after a prompt."""
        self._tokenizer = tokenizer
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._drop_space = at_start and tokenizer.adds_space_prefix

    def push(self, token: int) -> str:
        """Return the characters that ``token`` completes.

        Raises LlamadError INVALID for an id outside the vocabulary.
        """
        data = self._tokenizer.piece(token)
        if self._drop_space and data:
            self._drop_space = False
            data = data.removeprefix(b" ")
        return self._decoder.decode(data)

    def flush(self) -> str:
        """Return U+FFFD for a character that stays incomplete, else ""; the end of the text."""
        return self._decoder.decode(b"", final=True)
