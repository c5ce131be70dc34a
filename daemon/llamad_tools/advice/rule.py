"""Which way to run a model is recommended, and why.

- Nothing larger than the file at hand, and no second quantizing: what is quantized already stays as
  it is, but for Q8_0, which has lost next to nothing.
- The smallest mix that loses almost nothing, where even that decodes as fast as people read; else
  the smallest that loses little; else, of what stays in memory, the one that loses least.

Losses are judged by the larger end of their range. Mixes whose loss nobody published, or that lose
``MOST_LOSS``, are never recommended.
"""

from collections.abc import Sequence

from llamad_tools.advice.candidate import Candidate, file_bytes_of, is_smaller

ALMOST_NO_LOSS, SMALL_LOSS = 0.0025, 0.01  # of perplexity
LARGE_LOSS = 0.05  # from it on a smaller model is worth a thought
MOST_LOSS = 0.30  # from it on a smaller model is better in any case

ORIGINAL = "the original"  # of a quantized file: F16, BF16 or F32, from who published the model
_REQUANTIZABLE = frozenset({"Q8_0"})


def may_be_quantized(lost: Sequence[str]) -> bool:
    """Whether a file whose matrices have these quantized types may be quantized (again)."""
    return _REQUANTIZABLE.issuperset(lost)


def choose(
    lost: Sequence[str], mixes: Sequence[Candidate], own: Candidate | None, needed: int
) -> tuple[Candidate | None, str]:
    """Return what to take, None: nothing fits, and why.

    lost: the quantized types of the file at hand; mixes: what it, or its original, can become; own:
    the file as it is, None when there is none; needed: tokens of context.
    """
    if not may_be_quantized(lost):
        return _choose_quantized(lost, mixes, own, needed)
    known = [
        item
        for item in mixes
        if item.loss is not None and item.worst < MOST_LOSS and is_smaller(item, own)
    ]
    fitting = [item for item in known if item.context("q8_0") >= needed]
    if own is not None and own.context("q8_0") >= needed and (own.is_fast() or not fitting):
        close = [item for item in fitting if item.worst < ALMOST_NO_LOSS]
        if not close:
            return own, "it stays in memory as it is, and nothing smaller is as close to it"
    if not fitting:
        least = min(known or mixes, key=file_bytes_of)
        return None, (
            f"no mix of known quality stays in memory with {needed} tokens of context: the"
            f" smallest, {least.name}, lacks {least.lacking_mib(needed)} MiB; take a smaller model"
        )
    for bound in (ALMOST_NO_LOSS, SMALL_LOSS):
        good = [item for item in fitting if item.worst < bound]
        best = min(good, key=file_bytes_of, default=None)
        if best is not None and (bound == SMALL_LOSS or best.is_fast()):
            slower = "" if best.is_fast() else "; more bits would only decode slower"
            return best, (
                f"the smallest mix that loses less than {100 * bound:g} % of perplexity stays in"
                f" memory{slower}"
            )
    best = min(fitting, key=lambda item: item.worst)
    following = min((i for i in known if i.worst < best.worst), key=file_bytes_of, default=None)
    reason = f"it loses the least of what stays in memory with {needed} tokens of context"
    if following is not None:
        reason += f"; {following.name} lacks {following.lacking_mib(needed)} MiB"
    if best.worst >= LARGE_LOSS:
        reason += "; a model of half the size as Q4_K_M may serve better, and faster"
    return best, reason


def _choose_quantized(
    lost: Sequence[str], mixes: Sequence[Candidate], own: Candidate | None, needed: int
) -> tuple[Candidate | None, str]:
    """Keep a file that has lost already: how much more a second quantizing loses nobody knows."""
    again = (
        f"it is quantized already ({', '.join(lost)}), and what quantizing it again would lose is"
        " not known"
    )
    if own is not None and own.context("q8_0") >= needed:
        better = from_original(mixes, own, needed)
        more = "" if better is None else f"; there is room for {better.name}, made from {ORIGINAL}"
        return own, f"{again}{more}"
    lacking = "" if own is None else f"it lacks {own.lacking_mib(needed)} MiB of memory; "
    smaller = from_original(mixes, None, needed)
    instead = "take a smaller model" if smaller is None else f"{smaller.name} from {ORIGINAL} fits"
    return None, f"{lacking}{again}: {instead}"


def from_original(
    mixes: Sequence[Candidate], own: Candidate | None, needed: int
) -> Candidate | None:
    """Return the mix to have instead of a quantized file, with more bits than ``own``, if any."""
    best, _ = choose((), mixes, None, needed)
    if best is None or (own is not None and best.sizes.file_bytes <= own.sizes.file_bytes):
        return None
    return best
