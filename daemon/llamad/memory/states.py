"""How many states of sequences a model has room for, and how often one is kept: arithmetic.

A state is what layers without attention remember of a sequence (schedule/states.py). Those of LFM2
are smaller than a KV block; one of Qwen3.5 has 19 to 50 MiB.
"""

MIB = 1 << 20
KEPT_SHARE = 32  # of the memory: at most this part is for states that nobody has now,
LEAST_KEPT_BYTES = 32 * MIB  # and at least so much, as far as these bounds let:
LEAST_KEPT, MOST_KEPT = 4, 128  # slots
FAR_INTERVAL = 8  # blocks


def state_slots(state_bytes: int, n_sequences: int, memory_bytes: int | None) -> int:
    """Return the slots of an engine: one for each sequence, and those that are kept.

    memory_bytes: that the service may have, whatever of it is free now; None: not known.
    """
    if not state_bytes:
        return 0
    kept_bytes = max(LEAST_KEPT_BYTES, (memory_bytes or 0) // KEPT_SHARE)
    return n_sequences + max(LEAST_KEPT, min(MOST_KEPT, kept_bytes // state_bytes))


def state_interval(state_bytes: int, kv_block_bytes: int) -> int:
    """Return the KV blocks from one kept state to the next: each, where that costs less than it."""
    return 1 if state_bytes <= kv_block_bytes else FAR_INTERVAL
