"""The formats of answers, compiled for the vocabulary of one model.

Owns the texts of the vocabulary as the engine walks them, made when the first request with a format
comes, and the grammars that were used last. What a format means is sampling/constraint's.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from llamad.engine.bindings import Constraint, Grammar, TokenTrie
from llamad.sampling.constraint.automaton import compile_grammar
from llamad.sampling.constraint.formats import (
    Thoughts,
    behind_thoughts,
    control_token,
    format_grammar,
)
from llamad.sampling.response_format import ResponseFormat
from llamad.text.thinking import TAIL_TOKENS, ThinkingMarks
from llamad.text.tokenizer import Tokenizer
from llamad.text.vocabulary import TokenType

MAX_KEPT_BYTES = 8 << 20  # of automata, one always stays
MAX_KEPT = 8  # grammars, each of which may have as many bytes of masks

_Key = tuple[bytes, Thoughts]


class AnswerFormats:
    """Grammars by what they say and by the thoughts in front. Any thread."""

    def __init__(self, tokenizer: Tokenizer, thinking: ThinkingMarks) -> None:
        self._tokenizer = tokenizer
        self._thinking = thinking
        self._trie: TokenTrie | None = None
        self._making_trie = threading.Lock()
        self._kept: OrderedDict[_Key, Grammar] = OrderedDict()  # the one used last is the last
        self._lock = threading.Lock()

    def find(
        self, wanted: ResponseFormat, prompt: Sequence[int], *, is_chat: bool
    ) -> Grammar | None:
        """Return the grammar of the answer to a prompt if it was compiled, and not forgotten."""
        key = self._key(wanted, prompt, is_chat=is_chat)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def compile(self, wanted: ResponseFormat, prompt: Sequence[int], *, is_chat: bool) -> Grammar:
        """Return the grammar of the answer to a prompt; blocks.

        is_chat: a thought may stand in front of the answer. Raises INVALID_SCHEMA and
        INVALID_GRAMMAR, and EngineError when there is no memory.
        """
        found = self.find(wanted, prompt, is_chat=is_chat)
        if found is not None:
            return found
        key = self._key(wanted, prompt, is_chat=is_chat)
        automaton = compile_grammar(behind_thoughts(format_grammar(wanted), key[1]))
        grammar = Grammar(self._texts(), automaton)
        with self._lock:
            self._kept[key] = grammar
            n_bytes = sum(kept.n_bytes for kept in self._kept.values())
            while len(self._kept) > MAX_KEPT or (n_bytes > MAX_KEPT_BYTES and len(self._kept) > 1):
                n_bytes -= self._kept.popitem(last=False)[1].n_bytes
        return grammar

    def constraint(self, grammar: Grammar, tokens: Sequence[int]) -> Constraint:
        """Return where an answer is behind its first tokens. Raises EngineError."""
        return Constraint(grammar, self._tokenizer.vocabulary.end_ids, tokens)

    def close(self) -> None:
        """Forget everything; what a constraint still uses is freed with it."""
        with self._lock:
            self._kept.clear()

    def _key(self, wanted: ResponseFormat, prompt: Sequence[int], *, is_chat: bool) -> _Key:
        return wanted.digest, self._thoughts(prompt) if is_chat else Thoughts()

    def _thoughts(self, prompt: Sequence[int]) -> Thoughts:
        """Return what may stand in front of the answer to this prompt; none behind a closed one."""
        if not self._thinking.pairs:
            return Thoughts()
        tail = (self._tokenizer.piece(token, special=True) for token in prompt[-TAIL_TOKENS:])
        end = b"".join(tail).decode(errors="replace").rstrip()
        opened = self._thinking.opened(end)
        if opened is not None or any(end.endswith(close) for _, close in self._thinking.pairs):
            return Thoughts(opened)
        return Thoughts(pairs=self._thinking.pairs)

    def _texts(self) -> TokenTrie:
        with self._making_trie:
            if self._trie is None:
                self._trie = TokenTrie(constraint_texts(self._tokenizer))
            return self._trie


def constraint_texts(tokenizer: Tokenizer) -> Iterator[bytes]:
    """Return the text of each token as a constraint knows it.

    None for what ends an answer, which is allowed by its number, and for what is not used; control
    tokens have their names. A single byte that control tokens begin or end with is none either: it
    is no UTF-8.
    """
    vocabulary = tokenizer.vocabulary
    for token, kind in enumerate(vocabulary.types):
        if token in vocabulary.end_ids or kind in (TokenType.UNUSED, TokenType.UNKNOWN):
            yield b""
        elif kind == TokenType.CONTROL:
            yield control_token(tokenizer.piece(token, special=True))
        else:
            text = tokenizer.piece(token)
            yield b"" if b"\xff" in text or b"\xfe" in text else text
