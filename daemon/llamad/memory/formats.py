"""What the formats of answers take in memory: the vocabulary as a trie, and caches with bounds.

The caches shrink with the memory that the service may have. A smaller one costs time and changes no
answer: what does not fit is made again (service/answer_formats.py, native/src/constraint). Pure
arithmetic, of which the plan and what is bounded by it come to the same.
"""

from dataclasses import dataclass

MIB = 1 << 20
TRIE_TOKEN_BYTES = 45  # 31 to 43 on vocabularies of 32,000 to 262,144 tokens
CACHES_SHARE = 64  # at most this part of the memory is for caches,
LEAST_CACHES_BYTES, MOST_CACHES_BYTES = 3 * MIB, 12 * MIB  # within these bounds
MAX_KEPT = 8  # grammars that nobody uses now


@dataclass(frozen=True, slots=True)
class FormatCaches:
    """Bounds in bytes. An answer has one grammar, and states of its own."""

    grammar: int  # of one automaton; a larger one is refused
    grammars: int  # of all automata, kept and in use
    masks: int  # of one grammar's token masks
    states: int  # of one answer


def caches_bytes(memory_bytes: int | None) -> int:
    """Return what all caches may take. memory_bytes: of the service; None: not known."""
    if memory_bytes is None:
        return MOST_CACHES_BYTES
    return max(LEAST_CACHES_BYTES, min(MOST_CACHES_BYTES, memory_bytes // CACHES_SHARE))


def format_caches(memory_bytes: int | None, n_sequences: int) -> FormatCaches:
    """Return the bounds for so many answers at a time.

    A third is for masks, of the grammars in use and those that are kept; a quarter for states; the
    rest for automata, of which the largest has half. More than two such at a time take more than
    is counted: what an answer uses is not taken from it.
    """
    total = caches_bytes(memory_bytes)
    grammars = total * 5 // 12
    return FormatCaches(
        grammar=grammars // 2,
        grammars=grammars,
        masks=total // 3 // (n_sequences + MAX_KEPT),
        states=total // 4 // n_sequences,
    )


def formats_bytes(n_tokens: int, memory_bytes: int | None) -> int:
    """Return the most that the formats of a model's answers take."""
    return n_tokens * TRIE_TOKEN_BYTES + caches_bytes(memory_bytes)
