"""A mix of a model, or the file as it is, as something to choose: its sizes, room, loss and speed.

Bytes, tokens and shares of perplexity; what is chosen is rule.py's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from llamad.memory.plan import MIB, Demand, largest
from llamad_tools.advice.loss import Loss
from llamad_tools.advice.shape import MixSizes
from llamad_tools.quantize.mixes import Mix

READING_SPEED = 6.0  # tokens a second: about 250 words a minute
HERE = "here"  # this machine's column of speeds


@dataclass(frozen=True, slots=True)
class Candidate:
    """A mix, or the file as it is, and the bytes that the budget leaves to file and KV cache."""

    mix: Mix | None
    sizes: MixSizes
    room: int
    loss: Loss | None
    tokens_per_second: Mapping[str, float]

    @property
    def name(self) -> str:
        """The mix's name, or what the file is."""
        return "as it is" if self.mix is None else self.mix.name

    @property
    def worst(self) -> float:
        """The loss that is reckoned with."""
        assert self.loss is not None
        return self.loss.high

    def kv_bytes(self, kv_type: str, n_tokens: int) -> int:
        """Return the bytes of a cache of n_tokens."""
        demand = self.sizes.demands[kv_type]
        return demand.cache_bytes(-(-n_tokens // demand.kv_block_tokens), 1)

    def context(self, kv_type: str) -> int:
        """Return the tokens of KV cache beside the file, at most the trained context."""
        demand = self.sizes.demands[kv_type]
        beside = self.room - self.sizes.file_bytes
        most = -(-self.sizes.n_ctx_train // demand.kv_block_tokens)
        blocks = largest(0, most, lambda n: demand.cache_bytes(n, 1) <= beside)
        return min(blocks * demand.kv_block_tokens, self.sizes.n_ctx_train)

    def lacking_mib(self, n_tokens: int) -> int:
        """Return the MiB that it lacks to stay in memory with n_tokens of q8_0 cache."""
        needed = self.sizes.file_bytes + self.kv_bytes("q8_0", n_tokens)
        return -(-(needed - self.room) // MIB)

    def is_fast(self) -> bool:
        """Whether it decodes as people read: here, or on the slowest board."""
        speeds = self.tokens_per_second
        return speeds.get(HERE, min(speeds.values(), default=0.0)) >= READING_SPEED


def common_demand(sizes: MixSizes) -> Demand:
    """Return the demand with the larger scratch: a candidate is judged by one figure."""
    return max(sizes.demands.values(), key=lambda demand: demand.scratch_bytes)


def file_bytes_of(candidate: Candidate) -> int:
    """Return the size of the file: what smallest and largest are by."""
    return candidate.sizes.file_bytes


def is_smaller(candidate: Candidate, own: Candidate | None) -> bool:
    """Whether its file is smaller than the one at hand, if there is one."""
    return own is None or candidate.sizes.file_bytes < own.sizes.file_bytes
