"""One page about a board and what it reaches, for its owner to send: ``llamad bench --report``.

Owns the page and the object of ``--json``; ``benchmark.py`` measures, ``board.py`` reads the
machine. No name of a user, a host or a folder is on it.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from llamad import __version__
from llamad.board import Board, Heat
from llamad.printable import printable
from llamad.sizes import size
from llamad_tools.benchmark import BenchResult


@dataclass(frozen=True, slots=True)
class Report:
    """A measurement, where it was made, and how hot that was before and after."""

    board: Board
    before: Heat
    after: Heat
    result: BenchResult
    version: str = __version__

    def as_json(self) -> dict[str, object]:
        """Return one object: the names of ``llamad bench --json``, and the board's beside them."""
        return {
            **asdict(self.result),
            "llamad_version": self.version,
            "board": asdict(self.board),
            "heat_before": asdict(self.before),
            "heat_after": asdict(self.after),
        }

    def as_text(self) -> str:
        """Return the page."""
        return "\n".join(printable(line) for line in self._lines())

    def _lines(self) -> Iterator[str]:
        board, r = self.board, self.result
        yield f"llamad {self.version} on {board.name}"
        yield ""
        yield from _rows(
            ("system", f"{board.system or 'unknown'}, kernel {board.kernel}"),
            ("processor", _processor(board)),
            ("memory", "unknown" if board.memory_bytes is None else size(board.memory_bytes)),
            ("kernels", f"{r.cpu}, {r.threads} threads"),
            ("reads", f"memory at {size(r.read_bandwidth_bytes_per_second)}/s, {_disk(r)}"),
            ("heat", f"{_heat(self.before)} before, {_heat(self.after)} after"),
            ("throttling", f"{_throttling(self.before)} before, {_throttling(self.after)} after"),
        )
        yield ""
        yield from _rows(
            ("model", f"{r.model}, {size(r.model_bytes)}, KV cache {r.kv_type}"),
            (
                "in memory",
                f"{size(r.resident_bytes)}, {size(r.locked_bytes)} locked,"
                f" {'in huge pages' if r.huge_pages else 'as mapped'};"
                f" {size(r.peak_rss_bytes)} with everything",
            ),
            ("streamed", f"{size(r.streamed_bytes)}, {size(r.bytes_read_per_token)} read a token"),
            ("loaded in", f"{r.load_seconds:.2f} s, {size(r.model_bytes / r.load_seconds)}/s"),
        )
        yield ""
        yield f"{'':10}{'tokens':>8}{'sequences':>11}{'tokens/s':>11}   share of the limit"
        yield (
            f"{'prefill':10}{r.prompt_tokens:>8}{1:>11}{r.prefill_tokens_per_second:>11.2f}"
            f"   {_prefill_share(r)}"
        )
        yield (
            f"{'decode':10}{r.decode_tokens:>8}{r.sequences:>11}{r.decode_tokens_per_second:>11.2f}"
            f"   {100 * r.decode_share_of_bandwidth:.0f} % of the memory's speed{_disk_share(r)}"
        )


def _rows(*rows: tuple[str, str]) -> Iterator[str]:
    for name, value in rows:
        yield f"{name:<12}{value}"


def _processor(board: Board) -> str:
    text = f"{board.processors} cores"
    if board.processor is not None:
        text += f", {board.processor}"
    return text if board.governor is None else f"{text}, governor {board.governor}"


def _heat(heat: Heat) -> str:
    if heat.celsius is None:
        return "unknown"
    clock = "" if heat.frequency_hz is None else f" at {heat.frequency_hz / 1e9:.2f} GHz"
    return f"{heat.celsius:.0f} °C{clock}"


def _throttling(heat: Heat) -> str:
    if heat.throttling is None:
        return "unknown"
    return ", ".join(heat.throttling) or "none"


def _disk(r: BenchResult) -> str:
    if r.disk_speed_bytes_per_second is None:
        return "the disk was not needed"
    return f"disk at {size(r.disk_speed_bytes_per_second)}/s"


def _prefill_share(r: BenchResult) -> str:
    """Say how many rows of a prompt share a reading of the weights: the memory is no limit then."""
    passes = (
        r.prefill_tokens_per_second * r.weight_bytes_per_step / r.read_bandwidth_bytes_per_second
    )
    return f"{passes:.1f} times what one row at a time could reach"


def _disk_share(r: BenchResult) -> str:
    if r.share_of_disk_speed is None or r.share_of_disk_time_hidden is None:
        return ""
    return (
        f", {100 * r.share_of_disk_speed:.0f} % of the disk's;"
        f" {100 * r.share_of_disk_time_hidden:.0f} % of its reading hidden"
    )
