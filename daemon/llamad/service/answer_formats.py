"""The formats of answers, compiled for the vocabulary of one model.

Owns the texts of the vocabulary as the engine walks them, made when the first request with a format
comes, and the grammars that were used last. What a format means is sampling/constraint's.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from weakref import WeakSet

from llamad.engine.bindings import Constraint, Grammar, TokenTrie
from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.request import GenerationRequest
from llamad.memory.formats import MAX_KEPT, FormatCaches
from llamad.sampling.constraint.automaton import TooLargeError, compile_grammar
from llamad.sampling.constraint.formats import (
    ThoughtMessages,
    Thoughts,
    behind_head,
    behind_thoughts,
    control_token,
    format_grammar,
)
from llamad.sampling.response_format import FormatKind
from llamad.service.tool_grammar import Marks, ToolRules, answer_with_tools
from llamad.text.channels import ANALYSIS_HEAD, ASSISTANT, END, FINAL_HEAD, MARKS, ChannelMarks
from llamad.text.thinking import TAIL_TOKENS, ThinkingMarks, ThoughtMarks
from llamad.text.tokenizer import Tokenizer
from llamad.text.tools.formats import ToolFormat
from llamad.text.vocabulary import TokenType

_CHANNELS = Marks(MARKS, ())
_MESSAGES = ThoughtMessages(
    *map(_CHANNELS.spelled, (ANALYSIS_HEAD, END, ASSISTANT, FINAL_HEAD)),
)

_Key = tuple[bytes, Thoughts, str]


class AnswerFormats:
    """Grammars by what they say and by what stands in front. Any thread."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        thinking: ThoughtMarks,
        tool_format: Callable[[], ToolFormat],
        caches: FormatCaches,
    ) -> None:
        """Begin; tool_format: returns how the model calls tools. caches: their bounds."""
        self._tokenizer = tokenizer
        self._thinking = thinking
        self._tool_format = tool_format
        self._caches = caches
        self._trie: TokenTrie | None = None
        self._making_trie = threading.Lock()
        self._alive: WeakSet[Grammar] = WeakSet()  # those kept, and those that answers use
        self._kept: OrderedDict[_Key, Grammar] = OrderedDict()  # the one used last is the last
        self._lock = threading.Lock()

    def find(
        self, request: GenerationRequest, prompt: Sequence[int], *, is_chat: bool
    ) -> Grammar | None:
        """Return the grammar of the answer to a prompt if it was compiled, and not forgotten."""
        key = self._key(request, prompt, is_chat=is_chat)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def compile(
        self, request: GenerationRequest, prompt: Sequence[int], *, is_chat: bool
    ) -> Grammar:
        """Return the grammar of the answer to a prompt; blocks.

        is_chat: it may call tools, and a thought may stand in front. Raises INVALID_SCHEMA and
        INVALID_GRAMMAR, and EngineError when there is no memory.
        """
        found = self.find(request, prompt, is_chat=is_chat)
        if found is not None:
            return found
        key = self._key(request, prompt, is_chat=is_chat)
        wanted = request.response_format
        answer = None if wanted is None else behind_head(format_grammar(wanted), key[1])
        rules = ToolRules.of(request) if is_chat else None
        if rules is not None:
            row = self._tool_format()
            vocabulary = self._tokenizer.vocabulary
            controls = row.controls_in(vocabulary)
            ends = [mark for token, mark in controls.items() if token in vocabulary.end_ids]
            answer = answer_with_tools(rules, row, controls.values(), ends, key[2], answer)
        assert answer is not None, "the request is not constrained"
        try:
            automaton = compile_grammar(behind_thoughts(answer, key[1]), self._caches.grammar)
        except TooLargeError:
            raise _too_large(request, self._caches.grammar) from None
        grammar = Grammar(self._texts(), automaton)
        grammar.bound(self._caches.masks, self._caches.states)
        with self._lock:
            self._alive.add(grammar)
            self._kept[key] = grammar
            while len(self._kept) > MAX_KEPT or (
                len(self._kept) > 1
                and sum(one.n_bytes for one in self._alive) > self._caches.grammars
            ):
                self._kept.popitem(last=False)
        return grammar

    def constraint(self, grammar: Grammar, tokens: Sequence[int]) -> Constraint:
        """Return where an answer is behind its first tokens. Raises EngineError."""
        return Constraint(grammar, self._tokenizer.vocabulary.end_ids, tokens)

    def close(self) -> None:
        """Forget everything; what a constraint still uses is freed with it."""
        with self._lock:
            self._kept.clear()

    def _key(self, request: GenerationRequest, prompt: Sequence[int], *, is_chat: bool) -> _Key:
        """Return the digest of what is wanted, the thoughts and the call that the prompt begins."""
        wanted = request.response_format
        rules = ToolRules.of(request) if is_chat else None
        parts = (b"" if wanted is None else wanted.digest, rules)
        digest = hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).digest()
        if not is_chat:
            return digest, Thoughts(), ""
        tail = (self._tokenizer.piece(token, special=True) for token in prompt[-TAIL_TOKENS:])
        end = b"".join(tail).decode(errors="replace")
        opened = "" if rules is None else self._tool_format().opened(end)
        return digest, self._thoughts(end.rstrip()), opened

    def _thoughts(self, end: str) -> Thoughts:
        """Return what may stand in front of the answer to a prompt; none behind a closed one."""
        marks = self._thinking
        if isinstance(marks, ChannelMarks):
            return Thoughts(messages=_MESSAGES) if marks.at_head(end) else Thoughts()
        if not isinstance(marks, ThinkingMarks) or not marks.pairs:
            return Thoughts()
        opened = marks.opened(end)
        if opened is not None or any(end.endswith(close) for _, close in marks.pairs):
            return Thoughts(opened)
        return Thoughts(pairs=marks.pairs)

    def _texts(self) -> TokenTrie:
        with self._making_trie:
            if self._trie is None:
                self._trie = TokenTrie(constraint_texts(self._tokenizer))
            return self._trie


def _too_large(request: GenerationRequest, most_bytes: int) -> LlamadError:
    """Return the error of a format that memory has no room for."""
    reason, field = "INVALID_SCHEMA", "tools"
    if (wanted := request.response_format) is not None and wanted.n_bytes:
        field = wanted.kind.value
        reason = "INVALID_SCHEMA" if wanted.kind is FormatKind.JSON_SCHEMA else "INVALID_GRAMMAR"
    most = f"more than {most_bytes >> 10} KiB, the most where the service has so much memory"
    return LlamadError(ErrorKind.INVALID, reason, f"{field}: the compiled format takes {most}")


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
