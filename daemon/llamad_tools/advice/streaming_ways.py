"""Three ways to serve a model that does not fit: fewer bits, streamed from the disk, with a draft.

Pure arithmetic. A token takes as long as the slower of two readers that work at once: the disk for
what streams, the memory for everything. So every speed here is a limit, of which decoding reaches
most; ``llamad bench --memory-budget`` measures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llamad_tools.advice.loss import Loss

# Bytes per second that a disk gives: a card in a Raspberry Pi 4 (SDR50: 45 MB/s at most) and in a
# Raspberry Pi 5 (SDR104), a solid-state disk at USB 3, one at PCIe 2.0 x1.
CARD, FAST_CARD, USB_DISK, NVME_DISK = 40e6, 80e6, 350e6, 400e6

# A draft model guesses tokens that the large model then checks in one pass. With DRAFT_GUESSES and
# a share of right guesses as in Leviathan et al., "Fast Inference from Transformers via Speculative
# Decoding" (2023), table 3, for drafts of about this size.
DRAFT_SHARE = 1 / 8  # of the large model's bytes
DRAFT_GUESSES = 5
RIGHT_GUESSES = 0.7


@dataclass(frozen=True, slots=True)
class Reader:
    """How fast a machine reads its memory and its disk, in bytes per second."""

    memory: float
    disk: float


@dataclass(frozen=True, slots=True)
class Sized:
    """A model of one type under one plan. Bytes; loss: of perplexity, None when unknown."""

    type_name: str
    read_bytes: int  # of weights, for one decoded token
    streamed_bytes: int  # of these, from the disk
    loss: Loss | None


@dataclass(frozen=True, slots=True)
class StreamingWay:
    """One way to serve the model, and how fast it is at most on each machine."""

    name: str
    type_name: str
    streamed_bytes: int
    loss: Loss | None
    tokens_per_second: Mapping[str, float]
    assumed: bool  # its speed stands on guesses that nobody measured


def tokens_in_a_pass(guesses: int = DRAFT_GUESSES, right: float = RIGHT_GUESSES) -> float:
    """Return the expected tokens of one pass that checks guesses: their sum of chances, and one."""
    return (1 - right ** (guesses + 1)) / (1 - right)


def pass_seconds(model: Sized, reader: Reader) -> float:
    """Return the least seconds of one pass through the weights."""
    return max(model.streamed_bytes / reader.disk, model.read_bytes / reader.memory)


def three_ways(
    smaller: Sized | None,
    wanted: Sized,
    beside_draft: Sized | None,
    draft_bytes: int,
    readers: Mapping[str, Reader],
) -> list[StreamingWay]:
    """Return the ways that there are.

    smaller: a type that stays in memory; wanted: the type at hand, streamed in part; beside_draft:
    the same with draft_bytes less memory. None where that does not work at all.
    """
    ways = []
    if smaller is not None:
        ways.append(_way("smaller, in memory", smaller, readers))
    ways.append(_way("this type, streamed", wanted, readers))
    if beside_draft is not None:
        speeds = {
            name: tokens_in_a_pass()
            / (pass_seconds(beside_draft, reader) + DRAFT_GUESSES * draft_bytes / reader.memory)
            for name, reader in readers.items()
        }
        ways.append(
            StreamingWay(
                "with a draft",
                beside_draft.type_name,
                beside_draft.streamed_bytes,
                beside_draft.loss,
                speeds,
                assumed=True,
            )
        )
    return ways


def _way(name: str, model: Sized, readers: Mapping[str, Reader]) -> StreamingWay:
    speeds = {key: 1 / pass_seconds(model, reader) for key, reader in readers.items()}
    return StreamingWay(
        name, model.type_name, model.streamed_bytes, model.loss, speeds, assumed=False
    )


def verdict(ways: Sequence[StreamingWay], machine: str) -> str:
    """Say which way is the fastest on a machine, and how far behind the most exact one is.

    What is assumed is no candidate: it needs a second model, and depends on what it guesses.
    """
    there = [way for way in ways if not way.assumed]
    fastest = max(there, key=lambda way: way.tokens_per_second[machine])
    closest = min(there, key=lambda way: float("inf") if way.loss is None else way.loss.high)
    speed = fastest.tokens_per_second[machine]
    text = f"{machine}: fastest is {fastest.type_name} {_told(fastest)}, {speed:.2g} tokens/s"
    if closest is not fastest:
        times = speed / closest.tokens_per_second[machine]
        text += f", {times:.2g} times {closest.type_name} {_told(closest)}"
    return text


def _told(way: StreamingWay) -> str:
    return "streamed" if way.streamed_bytes else "in memory"
