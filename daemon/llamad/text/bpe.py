"""Byte-level BPE (``tokenizer.ggml.model`` = "gpt2"): words of bytes, merged pair by pair.

Text is cut into words (``pre_tokenizer.py``), a word becomes one symbol per UTF-8 byte, and the
adjacent pair of lowest rank is merged until none is left (Sennrich et al. 2016, arXiv:1508.07909;
bytes as symbols: Radford et al. 2019). Tokens spell bytes as printable characters.

A byte that the vocabulary has no token for vanishes, as in the implementations the models were
trained with; SmolLM's vocabulary, for one, lacks the bytes that are rare in UTF-8.
"""

from array import array
from collections.abc import Mapping, Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import cast

from llamad.printable import quoted
from llamad.text.pre_tokenizer import pre_tokenizer
from llamad.text.token_index import TokenIndex
from llamad.text.tokenizer import Tokenizer
from llamad.text.vocabulary import (
    Metadata,
    TokenType,
    Vocabulary,
    corrupt,
    list_value,
    text_value,
)

_CACHED_WORDS = 8192
_CACHED_CHARACTERS = 32  # words longer than this are rare: not cached
_SHORT_WORD_BYTES = 40  # what costs less with simple lists
_MAX_WORD_CHARACTERS = 16384  # longer words are cut: memory stays bounded, the text stays the same

_NO_TEXT = (TokenType.CONTROL, TokenType.UNKNOWN)
_NO_TOKEN = -1  # a byte without a token, or a symbol merged into its left neighbour

# The key of a pair of symbols is ``left << 32 | right``: negative, so no merge's, with _NO_TOKEN.


def _byte_alphabet() -> str:
    """Return the characters that spell the bytes 0..255 (encoder.py of GPT-2).

    Printable Latin-1 spells itself, the other bytes follow from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in printable else next(others)) for byte in range(256))


_ALPHABET = _byte_alphabet()
_SPELLING = dict(enumerate(_ALPHABET))
_BYTE_OF = {character: bytes((byte,)) for byte, character in enumerate(_ALPHABET)}


def spelled(data: bytes) -> str:
    """Return bytes as tokens spell them."""
    return data.decode("latin-1").translate(_SPELLING)


class BpeTokenizer(Tokenizer):
    """A byte-level BPE vocabulary with its merges."""

    def __init__(self, metadata: Metadata) -> None:
        """Read vocabulary and merges.

        Raises LlamadError CORRUPT that names the key, STATE for an unknown pre-tokenizer.
        """
        pre = pre_tokenizer(text_value(metadata, "pre"))
        vocabulary = Vocabulary.from_metadata(metadata, default_ids={}, add_bos_default=pre.add_bos)
        super().__init__(vocabulary)
        ids = text_ids(vocabulary)
        self._byte_ids = [ids.get(character, _NO_TOKEN) for character in _ALPHABET]
        self._merges = Merges(metadata, vocabulary, ids)
        self._words = pre.words
        self._whole_words: TokenIndex | None = None
        if pre.whole_words_first:
            normal = vocabulary.ids_of(TokenType.NORMAL)
            self._whole_words = TokenIndex(vocabulary.tokens, normal)
        self._cached_word_ids = lru_cache(_CACHED_WORDS)(self._word_ids)

    def _encode_text(self, text: str, after_special: bool) -> Sequence[int]:
        ids: list[int] = []
        for word in self._words(text):
            if len(word) <= _CACHED_CHARACTERS:
                ids.extend(self._cached_word_ids(word))
                continue
            for start in range(0, len(word), _MAX_WORD_CHARACTERS):
                ids.extend(self._word_ids(word[start : start + _MAX_WORD_CHARACTERS]))
        return ids

    def _word_ids(self, word: str) -> tuple[int, ...]:
        data = word.encode()
        if self._whole_words is not None:
            whole = self._whole_words.get(spelled(data))
            if whole is not None:
                return (whole,)
        symbols = self._merges.apply([self._byte_ids[byte] for byte in data])
        return tuple(s for s in symbols if s != _NO_TOKEN)

    def _text_piece(self, token: int, text: str) -> bytes:
        if self.vocabulary.types[token] == TokenType.USER_DEFINED:
            return text.encode("utf-8", "surrogateescape")
        return b"".join(
            _BYTE_OF.get(character) or character.encode("utf-8", "surrogateescape")
            for character in text
        )


class Merges:
    """The merges of a vocabulary: what becomes of the symbols of a word.

    A symbol is the id of a token, or negative: one that nothing merges with.
    """

    def __init__(self, metadata: Metadata, vocabulary: Vocabulary, ids: Mapping[str, int]) -> None:
        """Read the merges of the tokens ``ids``. Raises LlamadError CORRUPT that names the key."""
        self._ranks, self._merged = _read_merges(metadata, vocabulary, ids)

    def apply(self, symbols: list[int]) -> list[int]:
        """Return the symbols of one word, merged; -1 among them stands for nothing."""
        merge = self._merge_short if len(symbols) <= _SHORT_WORD_BYTES else self._merge_long
        return merge(symbols)

    def _merge_short(self, symbols: list[int]) -> list[int]:
        """Merge the symbols of one word, lowest rank first, leftmost among equals: as defined."""
        rank_of, none = self._ranks.get, len(self._merged)
        ranks = [rank_of(left << 32 | right, none) for left, right in pairwise(symbols)]
        while ranks and (rank := min(ranks)) < none:
            left = ranks.index(rank)
            token = self._merged[rank]
            symbols[left : left + 2] = [token]
            del ranks[left]
            if left < len(ranks):
                ranks[left] = rank_of(token << 32 | symbols[left + 1], none)
            if left > 0:
                ranks[left - 1] = rank_of(symbols[left - 1] << 32 | token, none)
        return symbols

    def _merge_long(self, symbols: list[int]) -> list[int]:
        """Do as ``_merge_short`` in n log n steps; symbols merged into others become _NO_TOKEN.

        All places of one rank at a time, over a linked list. A place (the left symbol of a pair)
        whose pair has changed since is recognized by its rank.
        """
        rank_of, merged = self._ranks.get, self._merged
        places = self._places(symbols)
        following = [*range(1, len(symbols) + 2)]
        preceding = [*range(-1, len(symbols))]
        symbols.append(_NO_TOKEN)  # no pair has it, also to the left of the first
        heap = [*places]
        heapify(heap)

        def add(rank: int, left: int) -> None:
            if rank in places:
                places[rank].append(left)
            else:
                places[rank] = [left]
                heappush(heap, rank)

        while heap:
            rank = heappop(heap)
            lefts = sorted(places.pop(rank, ()))
            token = merged[rank]
            for n_done, left in enumerate(lefts, 1):
                right = following[left]
                if rank_of(symbols[left] << 32 | symbols[right]) != rank:
                    continue
                symbols[left], symbols[right] = token, _NO_TOKEN
                following[left] = after = following[right]
                preceding[after] = left
                if (new_rank := rank_of(token << 32 | symbols[after])) is not None:
                    add(new_rank, left)
                before = preceding[left]
                if (new_rank := rank_of(symbols[before] << 32 | token)) is not None:
                    add(new_rank, before)
                if heap and heap[0] < rank:  # the file ranks a merge before one it is made of
                    places.setdefault(rank, []).extend(lefts[n_done:])
                    heappush(heap, rank)
                    break
        return symbols

    def _places(self, symbols: list[int]) -> dict[int, list[int]]:
        """Return rank -> the left symbols of all pairs that merge with it."""
        places: dict[int, list[int]] = {}
        for left, (symbol, right) in enumerate(pairwise(symbols)):
            rank = self._ranks.get(symbol << 32 | right)
            if rank is not None:
                places.setdefault(rank, []).append(left)
        return places


def text_ids(vocabulary: Vocabulary) -> dict[str, int]:
    """Return the ids of the tokens that text may consist of: all but control and unknown ones."""
    pairs = zip(vocabulary.tokens, vocabulary.types, strict=True)
    return {token: i for i, (token, kind) in enumerate(pairs) if kind not in _NO_TEXT}


def _read_merges(
    metadata: Metadata, vocabulary: Vocabulary, ids: Mapping[str, int]
) -> tuple[dict[int, int], Sequence[int]]:
    """Return pair -> rank and rank -> merged token.

    A merge that makes a control token is left out. Raises CORRUPT that names a merge whose tokens
    do not exist.
    """
    merges = list_value(metadata, "merges", str)
    if merges is None:
        raise corrupt("merges", "is missing")
    no_text = {vocabulary.tokens[i] for i in vocabulary.ids_of(*_NO_TEXT)}
    ranks: dict[int, int] = {}
    merged = array("I", bytes(4 * len(merges)))
    for rank, merge in enumerate(cast(Sequence[str], merges)):
        left, space, right = merge.partition(" ")
        if not (left and space and right):
            raise corrupt("merges", f"element {rank} is {quoted(merge)}, must be two tokens")
        try:
            key, merged[rank] = ids[left] << 32 | ids[right], ids[left + right]
        except KeyError as error:
            if error.args[0] not in no_text:
                missing = quoted(error.args[0])
                raise corrupt(
                    "merges", f"element {rank} is {quoted(merge)}, but {missing} is no token"
                ) from None
        else:
            ranks.setdefault(key, rank)
    return ranks, merged
