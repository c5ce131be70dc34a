"""Showing a completion as it arrives: text, prefill progress, statistics.

Owns everything between the client library and the streams of the process. Text goes to stdout;
progress and statistics go to stderr, so that a pipe gets the answer and nothing else.
"""

import dataclasses
import sys
import time
from typing import Any

from llamactl.output import print_json, printable
from llamad_api.v1 import llamad_pb2 as pb
from llamad_client import Completion, Failed, Result

PROGRESS_AFTER_SECONDS = 1.0
_ERASE_LINE = "\r\x1b[K"


def show(completion: Completion, *, as_json: bool, stats: bool) -> str:
    """Print a completion as it arrives; return its text.

    Leaving by an exception, Ctrl-C included, cancels the job. Raises Failed when somebody else
    cancelled it.
    """
    with completion:
        text = _stream_json(completion) if as_json else _stream_text(completion)
    result = completion.result
    if result is None:
        raise Failed("STREAM_ENDED", "the answer ended without its last event")
    if stats:
        print_stats(result)
    if result.finish_reason == "cancelled":
        raise Failed("CANCELLED", f"job {result.job_id} was cancelled")
    return text


def _stream_text(completion: Completion) -> str:
    progress = _Progress()
    pieces = []
    try:
        for event in completion.events():
            if isinstance(event, pb.PrefillProgress):
                progress.update(event)
            elif isinstance(event, pb.TextDelta):
                progress.erase()
                pieces.append(event.text)
                sys.stdout.write(printable(event.text))
                sys.stdout.flush()
    finally:
        progress.erase()
    text = "".join(pieces)
    if not text.endswith("\n"):
        print(flush=True)
    return text


def _stream_json(completion: Completion) -> str:
    pieces = []
    for event in completion.events():
        if isinstance(event, pb.TextDelta):
            pieces.append(event.text)
            print_json({"type": "delta", "text": event.text, "tokens": event.tokens})
        elif isinstance(event, pb.PrefillProgress):
            print_json({"type": "prefill", **_numbers(event, "processed_tokens", "prompt_tokens")})
        elif isinstance(event, pb.Queued):
            fields = _numbers(event, "job_id", "queue_position", "prompt_tokens")
            print_json({"type": "queued", **fields})
    if completion.result is not None:
        print_json({"type": "finished", **dataclasses.asdict(completion.result)})
    return "".join(pieces)


def _numbers(event: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(event, name) for name in names}


class _Progress:
    """The line that tells how much of a long prompt is read; only on a terminal."""

    def __init__(self) -> None:
        self._enabled = sys.stderr.isatty()
        self._started = time.monotonic()
        self._shown = False

    def update(self, event: pb.PrefillProgress) -> None:
        """Show the progress, once reading has taken long enough to wonder."""
        if not self._enabled or time.monotonic() - self._started < PROGRESS_AFTER_SECONDS:
            return
        percent = 100 * event.processed_tokens // max(1, event.prompt_tokens)
        line = f"reading the prompt: {event.processed_tokens}/{event.prompt_tokens} ({percent} %)"
        print(_ERASE_LINE + line, end="", file=sys.stderr, flush=True)
        self._shown = True

    def erase(self) -> None:
        """Remove the line, if there is one."""
        if self._shown:
            print(_ERASE_LINE, end="", file=sys.stderr, flush=True)
            self._shown = False


def print_stats(result: Result) -> None:
    """Print the timings and the seed to stderr."""
    times = result.timings
    read = result.prompt_tokens - result.cached_prompt_tokens
    decoded = max(0, result.completion_tokens - 1)  # the first token comes out of the prefill
    prefill_rate = _rate(read, times.prefill_seconds)
    decode_rate = _rate(decoded, times.decode_seconds)
    for line in (
        f"load:    {times.load_seconds:.2f} s",
        f"queue:   {times.queue_seconds:.2f} s",
        f"prefill: {read} tokens in {times.prefill_seconds:.2f} s{prefill_rate}",
        f"decode:  {decoded} tokens in {times.decode_seconds:.2f} s{decode_rate}",
        f"first token after {times.time_to_first_token_seconds:.2f} s",
        f"finish:  {result.finish_reason}",
        f"seed:    {result.seed}",
    ):
        print(line, file=sys.stderr)


def _rate(tokens: int, seconds: float) -> str:
    return f" ({tokens / seconds:.1f} tokens/s)" if tokens and seconds > 0 else ""
