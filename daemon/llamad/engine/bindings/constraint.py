"""A vocabulary's texts, a grammar over them, and where one answer is in it."""

from array import array
from collections.abc import Iterable, Sequence

from llamad._engine import ffi, lib
from llamad.engine.bindings.handle import Handle
from llamad.engine.bindings.status import check
from llamad.sampling.constraint.automaton import Automaton

FORCED_BYTES = 256  # looked ahead at most


class TokenTrie(Handle):
    """The texts of a vocabulary."""

    def __init__(self, texts: Iterable[bytes]) -> None:
        """``texts``: of each token; an empty one is never allowed.

        Raises EngineError when there is no memory.
        """
        joined, offsets = bytearray(), array("I", [0])
        for text in texts:
            joined += text
            offsets.append(len(joined))
        self.vocab_size = len(offsets) - 1
        out = ffi.new("lld_token_trie **")
        check(
            lib.lld_token_trie_create(
                ffi.from_buffer(joined),
                ffi.from_buffer("uint32_t[]", offsets),
                self.vocab_size,
                out,
            )
        )
        self._open(out[0], lib.lld_token_trie_destroy)

    @property
    def n_bytes(self) -> int:
        """What it takes of the memory."""
        return int(lib.lld_token_trie_bytes(self._c))


class Grammar(Handle):
    """A language over the tokens of a vocabulary; what is found out about it is kept."""

    def __init__(self, trie: TokenTrie, automaton: Automaton) -> None:
        """Raise EngineError when the automaton is refused."""
        out = ffi.new("lld_grammar **")
        check(
            lib.lld_grammar_create(
                trie._c,
                ffi.cast("const lld_edge *", ffi.from_buffer(automaton.edges)),
                ffi.from_buffer("uint32_t[]", automaton.first_edge),
                ffi.from_buffer("uint32_t[]", automaton.bounds),
                automaton.n_states,
                automaton.start,
                out,
            )
        )
        self.vocab_size = trie.vocab_size
        self.n_bytes = automaton.n_bytes
        self._open(out[0], lib.lld_grammar_destroy, trie)

    def bound(self, mask_bytes: int, state_bytes: int) -> None:
        """Keep no more than so many bytes of token masks, and of states of each constraint.

        What is forgotten is found out again. Before there are constraints.
        """
        lib.lld_grammar_bound(self._c, mask_bytes, state_bytes)


class Constraint(Handle):
    """Where one answer is in its grammar."""

    def __init__(
        self, grammar: Grammar, end_tokens: Iterable[int], begun: Sequence[int] = ()
    ) -> None:
        """``end_tokens``: allowed where the answer may end. Raises EngineError.

        ``begun``: tokens that the answer has already, read by ``catch_up``.
        """
        ids = list(end_tokens)
        out = ffi.new("lld_constraint **")
        check(lib.lld_constraint_create(grammar._c, ffi.new("int32_t[]", ids), len(ids), out))
        self._vocab_size = grammar.vocab_size
        self._begun = begun
        self._open(out[0], lib.lld_constraint_destroy, grammar)

    def catch_up(self) -> None:
        """Go on by the tokens that were there before. Raises EngineError as ``accept`` does."""
        begun, self._begun = self._begun, ()
        for token in begun:
            self.accept(token)

    def accept(self, token: int) -> None:
        """Go on by one token. Raises EngineError when it may not come here."""
        check(lib.lld_constraint_accept(self._c, token))

    @property
    def accepts(self) -> bool:
        """Whether the answer may end here."""
        return bool(lib.lld_constraint_accepts(self._c))

    @property
    def complete(self) -> bool:
        """Whether it ends here, because nothing may follow."""
        return bool(lib.lld_constraint_complete(self._c))

    def allowed(self) -> list[int]:
        """Return the tokens that may come next, ascending."""
        flags = ffi.new("uint8_t[]", self._vocab_size)
        check(lib.lld_constraint_allowed(self._c, flags))
        return [i for i, flag in enumerate(ffi.buffer(flags)[:]) if flag]

    def forced(self) -> bytes:
        """Return what must come next, whatever the model says."""
        out = ffi.new("uint8_t[]", FORCED_BYTES)
        n = lib.lld_constraint_forced(self._c, out, FORCED_BYTES)
        return bytes(ffi.buffer(out)[:n])

    def forced_tokens(self, limit: int) -> tuple[int, ...]:
        """Return that as tokens, each the longest that fits: a guess of how a model cuts them."""
        if self._begun:
            return ()
        out = ffi.new("int32_t[]", max(1, limit))
        n = lib.lld_constraint_forced_tokens(self._c, out, max(0, limit))
        return tuple(out[0:n])
