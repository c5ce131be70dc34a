"""The memory plan of one model on one machine, made before anything is loaded.

A model that does not fit its memory is read from the disk again for every token, so the budget is
divided first: margin, KV cache, and then the file that may be locked. Pure arithmetic on bytes.
"""

from dataclasses import dataclass

from llamad.errors import ErrorKind, LlamadError

MARGIN_BYTES = 64 << 20  # Python, scratch, stacks and the connections of clients
KV_BLOCK_TOKENS = 32
HUGE_PAGES_ROOM = 1.3  # times the file that must be available before its weights are copied
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What goes where. Tokens and bytes."""

    kv_tokens: int  # over all sequences
    kv_bytes: int
    model_fits: bool  # the whole file stays in memory beside the KV cache
    lockable_bytes: int  # of the file


def plan_memory(
    *,
    budget_bytes: int | None,
    model_bytes: int,
    kv_bytes_per_token: int,
    kv_tokens: int,
    n_ctx: int,
    n_sequences: int,
) -> MemoryPlan:
    """Divide ``budget_bytes`` (None: no limit is known).

    ``kv_tokens`` 0 gives every sequence its whole context, and less, but at least one whole
    context, when the model would not fit beside that. Raises OUT_OF_MEMORY when the KV cache
    does not fit at all; a model that does not fit is no error.
    """
    wanted = kv_tokens or n_ctx * n_sequences
    if budget_bytes is None:
        return MemoryPlan(wanted, wanted * kv_bytes_per_token, True, model_bytes)
    room = budget_bytes - MARGIN_BYTES
    if not kv_tokens:
        beside_model = max(0, room - model_bytes) // kv_bytes_per_token
        beside_model -= beside_model % KV_BLOCK_TOKENS
        wanted = min(wanted, max(n_ctx, beside_model))
    kv_bytes = wanted * kv_bytes_per_token
    if kv_bytes > room:
        raise LlamadError(
            ErrorKind.EXHAUSTED,
            "OUT_OF_MEMORY",
            f"a KV cache of {wanted} tokens needs {-(-kv_bytes // MIB)} MiB, the memory budget of"
            f" {budget_bytes // MIB} MiB leaves {max(0, room) // MIB} MiB",
        )
    left = room - kv_bytes
    return MemoryPlan(wanted, kv_bytes, model_bytes <= left, min(model_bytes, left))


def plan_huge_pages(
    choice: str, *, file_bytes: int, available_bytes: int | None, is_board: bool
) -> bool:
    """Whether to copy the weights into huge pages, by ``choice``: auto, on or off.

    auto: with plenty of memory, and never on a small board, which needs its page cache.
    """
    if choice != "auto":
        return choice == "on"
    return not is_board and (
        available_bytes is None or available_bytes > HUGE_PAGES_ROOM * file_bytes
    )
