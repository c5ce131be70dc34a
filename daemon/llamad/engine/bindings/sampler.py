"""The sampler of one sequence."""

from collections.abc import Callable, Collection
from typing import cast

from llamad._engine import ffi, lib
from llamad.engine.bindings.constraint import Constraint
from llamad.engine.bindings.engine import Engine
from llamad.engine.bindings.handle import Handle
from llamad.engine.bindings.status import check
from llamad.sampling.parameters import PARAMETERS, SAMPLERS, Sampling
from llamad.sampling.sequence_breakers import SequenceBreakers


class Sampler(Handle):
    """Parameters, random state and last tokens of one sequence."""

    def __init__(
        self,
        sampling: Sampling,
        *,
        vocab_size: int,
        n_ctx: int,
        seed: int,
        n_draws: int = 0,
        mu: float | None = None,
        forbidden: Collection[int] = (),
        first_draw: int = 0,
        piece: Callable[[int], bytes] | None = None,
    ) -> None:
        """Make a sampler as it is after n_draws draws, but for the tokens that it has to accept.

        seed: used whatever ``sampling`` says. mu: what mirostat had learned then; None: nothing.
        forbidden: tokens that are not drawn before draw number ``first_draw``. piece: the bytes of
        a token, for DRY's breakers; without it there are none. Raises EngineError when a parameter
        is refused.
        """
        numbers = {name: getattr(sampling, name) for name in PARAMETERS}
        bias = sampling.logit_bias
        out = ffi.new("lld_sampler **")
        check(
            lib.lld_sampler_create(
                ffi.new("lld_sampling *", {**numbers, "seed": seed}),
                vocab_size,
                n_ctx,
                ffi.new("int32_t[]", list(bias.keys())),
                ffi.new("float[]", list(bias.values())),
                len(bias),
                n_draws,
                out,
            )
        )
        self._open(out[0], lib.lld_sampler_destroy)
        self._vocab_size = vocab_size
        self._constraint: Constraint | None = None
        self._breakers: SequenceBreakers | None = None
        if piece is not None and sampling.dry_multiplier > 0:
            self._breakers = SequenceBreakers(sampling.dry_sequence_breakers, piece)
        if sampling.samplers:
            order = bytes(SAMPLERS.index(name) for name in sampling.samplers)
            check(lib.lld_sampler_set_order(self._c, order, len(order)))
        if forbidden and n_draws < first_draw:
            tokens = list(forbidden)
            check(lib.lld_sampler_forbid(self._c, tokens, len(tokens), first_draw))
        if mu is not None:
            check(lib.lld_sampler_set_mu(self._c, mu))

    @property
    def mu(self) -> float:
        """What mirostat has learned; the one state that does not follow from tokens and seed."""
        return cast(float, lib.lld_sampler_mu(self._c))

    def constrain(self, constraint: Constraint) -> None:
        """Draw only what the constraint allows from now on; it goes on with each token drawn.

        Raises EngineError for a constraint over another vocabulary.
        """
        check(lib.lld_sampler_constrain(self._c, constraint._c))
        self._use(constraint)
        self._constraint = constraint

    @property
    def ended(self) -> bool:
        """Whether nothing may follow what was drawn: its constraint is complete."""
        return self._constraint is not None and self._constraint.complete

    def accept(self, token: int, *, penalized: bool = True) -> None:
        """Count a token as recent; those that were sampled are counted already.

        penalized: by the penalties, too, and not by DRY alone.
        """
        lib.lld_sampler_accept(self._c, token, penalized)
        self._note(token)

    def sample(self, engine: Engine, k: int) -> int:
        """Draw the next token from kept row k."""
        if engine.vocab_size != self._vocab_size:
            raise ValueError(
                f"a sampler of {self._vocab_size} tokens, an engine of {engine.vocab_size}"
            )
        if self._constraint is not None:
            self._constraint.catch_up()
        out = ffi.new("int32_t *")
        check(lib.lld_sampler_sample(self._c, engine._row(k), out))
        token = cast(int, out[0])
        self._note(token)
        return token

    def _note(self, token: int) -> None:
        if self._breakers is not None and self._breakers.push(token):
            lib.lld_sampler_break(self._c)
