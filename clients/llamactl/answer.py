"""Showing a completion as it arrives: text, prefill progress, statistics.

Owns everything between the client library and the streams of the process. Text goes to stdout;
progress and statistics go to stderr, so that a pipe gets the answer and nothing else.
"""

import dataclasses
import sys
import time

from llamactl.output import print_json, print_note, printable
from llamactl.progress_line import ProgressLine
from llamad_client import Completion, Failed, PrefillProgress, Queued, Result, TextDelta

PROGRESS_AFTER_SECONDS = 1.0


def show(
    completion: Completion,
    *,
    as_json: bool,
    stats: bool,
    max_tokens: int | None = None,
    when_full: str = "",
) -> str:
    """Print a completion as it arrives; return its text.

    max_tokens: that were asked for; an answer that ends sooner for its length met the end of the
    context, and a note says so. when_full: what the note says to do about it.
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
    if not as_json and _met_the_end_of_the_context(result, max_tokens):
        print_note(f"the answer ends here: the context is full{when_full}")
    if result.finish_reason == "cancelled":
        raise Failed("CANCELLED", f"job {result.job_id} was cancelled")
    return text


def _met_the_end_of_the_context(result: Result, max_tokens: int | None) -> bool:
    wanted_more = max_tokens is None or result.completion_tokens < max_tokens
    return result.finish_reason == "length" and wanted_more


def _stream_text(completion: Completion) -> str:
    progress = PrefillLine()
    pieces = []
    try:
        for event in completion.events():
            if isinstance(event, PrefillProgress):
                progress.update(event)
            elif isinstance(event, TextDelta):
                progress.erase()
                pieces.append(event.text)
                sys.stdout.write(event.text)
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
        if isinstance(event, TextDelta):
            pieces.append(event.text)
            print_json({"type": "delta", **dataclasses.asdict(event)})
        elif isinstance(event, PrefillProgress):
            print_json({"type": "prefill", **dataclasses.asdict(event)})
        elif isinstance(event, Queued):
            print_json({"type": "queued", **dataclasses.asdict(event)})
    if completion.result is not None:
        print_json({"type": "finished", **dataclasses.asdict(completion.result)})
    return "".join(pieces)


class PrefillLine:
    """The line that tells how much of a long prompt is read."""

    def __init__(self) -> None:
        self._line = ProgressLine()
        self._started = time.monotonic()

    def update(self, event: PrefillProgress) -> None:
        """Show the progress, once reading has taken long enough to wonder."""
        if time.monotonic() - self._started < PROGRESS_AFTER_SECONDS:
            return
        percent = 100 * event.processed_tokens // max(1, event.prompt_tokens)
        done = f"{event.processed_tokens}/{event.prompt_tokens} ({percent} %)"
        self._line.show(f"reading the prompt: {done}")

    def erase(self) -> None:
        """Remove the line, if there is one."""
        self._line.erase()


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
        print(printable(line), file=sys.stderr)


def _rate(tokens: int, seconds: float) -> str:
    return f" ({tokens / seconds:.1f} tokens/s)" if tokens and seconds > 0 else ""
