"""How many tokens one sequence holds where nobody has said: what memory allows.

Pure arithmetic beside ``plan.py``, which divides the memory once this number stands. The rule:

- At most what the model was trained on, and ``MOST_TOKENS``.
- A model that fits stays in memory: up to ``USUAL_TOKENS`` are as many as fit beside it.
- More only while the caches of all sequences together fit beside it, and take no more than
  ``1 / CACHE_SHARE`` of the budget.
- A model that is read from the disk for every token anyway (it does not fit with ``LEAST_TOKENS``)
  gives way, but the cache adds at most ``1 / READ_SHARE`` to what is read, and takes at most a
  quarter of what there is for both.
- ``LEAST_TOKENS`` in any case: fewer are no conversation.
"""

from collections.abc import Callable

from llamad.memory.plan import Demand, fixed_bytes
from llamad.memory.residency import whole_bytes

LEAST_TOKENS = 512
USUAL_TOKENS = 4096
MOST_TOKENS = 32_768
CACHE_SHARE = 4
READ_SHARE = 3

_STEP_TOKENS = 256


def plan_context(
    demand_of: Callable[[int], Demand],
    *,
    budget_bytes: int | None,
    n_ctx_train: int,
    n_sequences: int,
) -> int:
    """Return the most tokens that the rule allows: a multiple of 256, or all that were trained.

    demand_of: what the model takes with a context of so many tokens; never less for more.
    budget_bytes None: no limit is known. n_ctx_train 0: the file does not say.
    """
    most = min(n_ctx_train or USUAL_TOKENS, MOST_TOKENS)
    if budget_bytes is None:
        return min(most, USUAL_TOKENS)
    budget = budget_bytes

    def beside(n_ctx: int) -> bool:
        """Whether the model stays in memory beside a cache of so many tokens."""
        cache, room, file = _sizes(demand_of(n_ctx), n_ctx, budget, n_sequences)
        if n_ctx > USUAL_TOKENS:
            cache *= n_sequences
            if cache > budget // CACHE_SHARE:
                return False
        return file + cache <= room

    def displacing(n_ctx: int) -> bool:
        """Whether a model that does not fit may give way to a cache of so many tokens."""
        cache, room, file = _sizes(demand_of(n_ctx), n_ctx, budget, n_sequences)
        return n_ctx <= USUAL_TOKENS and cache <= (file - room) // READ_SHARE and cache <= room // 4

    least = min(LEAST_TOKENS, most)
    return _most_allowed(beside if beside(least) else displacing, least, most)


def _sizes(demand: Demand, n_ctx: int, budget: int, n_sequences: int) -> tuple[int, int, int]:
    """Return the bytes of one sequence's cache, of the room for model and cache, of the model."""
    cache = demand.cache_bytes(-(-n_ctx // demand.kv_block_tokens), 1)
    whole = whole_bytes(demand.extents, demand.file_bytes)
    return cache, budget - fixed_bytes(demand, n_sequences), whole


def _most_allowed(allowed: Callable[[int], bool], least: int, most: int) -> int:
    """Return the largest number that is allowed, ``least`` when none is: found by halving."""
    if allowed(most):
        return most
    low, high = 0, -(-(most - least) // _STEP_TOKENS)  # steps above least; high is not allowed
    while high - low > 1:
        middle = (low + high) // 2
        if allowed(least + middle * _STEP_TOKENS):
            low = middle
        else:
            high = middle
    return least + low * _STEP_TOKENS
