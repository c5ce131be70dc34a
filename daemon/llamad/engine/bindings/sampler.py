"""The sampler of one sequence."""

from typing import cast

from llamad._engine import ffi, lib
from llamad.engine.bindings.constraint import Constraint
from llamad.engine.bindings.engine import Engine
from llamad.engine.bindings.handle import Handle
from llamad.engine.bindings.status import check
from llamad.sampling.parameters import PARAMETERS, Sampling


class Sampler(Handle):
    """Parameters, random state and penalty window of one sequence."""

    def __init__(
        self, sampling: Sampling, *, vocab_size: int, n_ctx: int, seed: int, n_draws: int = 0
    ) -> None:
        """Make a sampler as it is after n_draws draws, but for the tokens that it has to accept.

        seed: used whatever ``sampling`` says. Raises EngineError when a parameter is refused.
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

    def constrain(self, constraint: Constraint) -> None:
        """Draw only what the constraint allows from now on; it goes on with each token drawn.

        Raises EngineError for a constraint over another vocabulary.
        """
        check(lib.lld_sampler_constrain(self._c, constraint._c))
        self._use(constraint)

    def accept(self, token: int) -> None:
        """Put one token into the penalty window; those that were sampled are in it already."""
        lib.lld_sampler_accept(self._c, token)

    def sample(self, engine: Engine, k: int) -> int:
        """Draw the next token from kept row k."""
        if engine.vocab_size != self._vocab_size:
            raise ValueError(
                f"a sampler of {self._vocab_size} tokens, an engine of {engine.vocab_size}"
            )
        token = ffi.new("int32_t *")
        check(lib.lld_sampler_sample(self._c, engine._row(k), token, ffi.NULL))
        return cast(int, token[0])
