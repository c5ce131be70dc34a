"""Showing a completion as it arrives: text, prefill progress, statistics.

Owns everything between the client library and the streams of the process. Text goes to stdout;
progress and statistics go to stderr, so that a pipe gets the answer and nothing else.
"""

import dataclasses
import json
import math
import os
import sys
import time
from typing import Any

from llamactl import streams
from llamactl.output import counted, print_json, print_note, printable
from llamactl.progress_line import ProgressLine
from llamactl.summary import duration
from llamactl.word_wrap import WordWrap
from llamad_client import (
    Completion,
    Failed,
    PrefillProgress,
    Queued,
    Result,
    TextDelta,
    ThinkingDelta,
    TokenLogprob,
    ToolCallDelta,
)

PROGRESS_AFTER_SECONDS = 1.0
DIM, PLAIN = "\x1b[2m", "\x1b[22m"  # ECMA-48, SGR


def show(
    completion: Completion,
    *,
    as_json: bool,
    stats: bool,
    max_tokens: int | None = None,
    submitted: bool = False,
    when_full: str = "",
) -> str:
    """Print a completion as it arrives; return its text.

    max_tokens: that were asked for; of a job that was submitted that is not known. A note says what
    cut an answer short; when_full: what to do where that was the end of the context. Thoughts are
    no part of the text: they are shown dimmed on a terminal, and nowhere else.
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
    note = _why_it_ended(result, max_tokens, submitted, when_full)
    if note and not as_json:
        print_note(note)
    if result.finish_reason == "cancelled":
        raise Failed("CANCELLED", f"job {result.job_id} was cancelled")
    return text


def _why_it_ended(result: Result, max_tokens: int | None, submitted: bool, when_full: str) -> str:
    """Return the note about an answer that something cut short; empty for any other."""
    n_tokens = counted(result.completion_tokens, "token")
    if result.finish_reason == "loop":
        return "the answer only repeated itself, so it was ended; --no-loop-guard lets it go on"
    if result.finish_reason != "length":
        return ""
    if result.context_full:
        return f"the answer ends here: the context is full{when_full}"
    if submitted:
        return f"the answer was cut after {n_tokens}, the most that this job may make"
    if max_tokens is None:
        return (
            f"the answer was cut after {n_tokens}, because this model may never end one:"
            " --max-tokens sets another bound"
        )
    return f"the answer was cut after {n_tokens}, as --max-tokens says"


def note_substitute(event: Queued) -> None:
    """Say how a chat was written for a model that has no chat template."""
    if event.substitute_template:
        print_note(
            f"the model has no chat template: the {event.substitute_template} one was taken;"
            " ask --raw continues a text as it is"
        )


def note_dropped(event: Queued) -> None:
    """Say that the context was full, and how much of the conversation the model did not read."""
    n = event.dropped_messages
    if n:
        messages = "message was" if n == 1 else f"{n} messages were"
        print_note(f"the context is full: the oldest {messages} left out")


class _TextView:
    """Standard output while a completion comes.

    A terminal gets lines that break between words, and dimmed what the model thinks first. Anything
    else gets the answer, every byte as it is, and no thought.
    """

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._wrap = WordWrap(_terminal_columns)
        self._thinks = False

    def add(self, text: str, *, thought: bool = False) -> None:
        """Show a piece of the answer, or of a thought."""
        if thought and not self._is_terminal:
            return
        if thought != self._thinks:
            self._turn(thought)
        self._write(self._wrap.feed(text) if self._is_terminal else text)

    def end(self) -> None:
        """Show what was held back."""
        if self._thinks:
            self._turn(thought=False)
        self._write(self._wrap.end())

    def _turn(self, thought: bool) -> None:
        """Begin a thought, or end it."""
        self._thinks = thought
        if thought:
            streams.control(sys.stdout, DIM)
            return
        self._write(self._wrap.end())
        streams.control(sys.stdout, PLAIN)
        self._write("\n\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _terminal_columns() -> int:
    """Return how wide the terminal is now; 0 where it does not say."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return 0


def _stream_text(completion: Completion) -> str:
    progress = PrefillLine()
    view = _TextView()
    pieces = []
    queued = False
    try:
        for event in completion.events():
            if isinstance(event, PrefillProgress):
                progress.update(event)
            elif isinstance(event, Queued):
                if not queued:  # it comes again when the place changes
                    queued = True
                    note_substitute(event)
                    note_dropped(event)
                progress.queued(event)
            elif isinstance(event, ThinkingDelta):
                progress.erase()
                view.add(event.text, thought=True)
            elif isinstance(event, TextDelta):
                progress.erase()
                pieces.append(event.text)
                view.add(event.text)
            elif isinstance(event, ToolCallDelta):
                progress.erase()
                line_end = "" if not pieces or pieces[-1].endswith("\n") else "\n"
                pieces.append(f"{line_end}{_call_line(event)}\n")
                view.add(pieces[-1])
    finally:
        progress.erase()
        view.end()
    text = "".join(pieces)
    if not text.endswith("\n"):
        print(flush=True)
    return text


def _call_line(call: ToolCallDelta) -> str:
    """Return a call as a line of JSON."""
    arguments = json.loads(call.arguments)
    return json.dumps({"name": call.name, "arguments": arguments}, ensure_ascii=False)


def _stream_json(completion: Completion) -> str:
    pieces = []
    for event in completion.events():
        if isinstance(event, TextDelta):
            pieces.append(event.text)
            print_json({"type": "delta", **_delta_values(event)})
        elif isinstance(event, ThinkingDelta):
            print_json({"type": "thinking", **dataclasses.asdict(event)})
        elif isinstance(event, ToolCallDelta):
            print_json({"type": "tool_call", **dataclasses.asdict(event)})
        elif isinstance(event, PrefillProgress):
            print_json({"type": "prefill", **dataclasses.asdict(event)})
        elif isinstance(event, Queued):
            print_json({"type": "queued", **dataclasses.asdict(event)})
    if completion.result is not None:
        print_json({"type": "finished", **dataclasses.asdict(completion.result)})
    return "".join(pieces)


def _delta_values(event: TextDelta) -> dict[str, Any]:
    """Return the fields of a piece of text as JSON has them."""
    values: dict[str, Any] = {"text": event.text, "tokens": event.tokens}
    if event.logprob is not None:
        values["logprob"] = _logprob_values(event.logprob)
        values["logprob"]["likeliest"] = [_logprob_values(e) for e in event.logprob.likeliest]
    return values


def _logprob_values(entry: TokenLogprob) -> dict[str, Any]:
    """Return how likely a token was; its text may be half a character, so its bytes are there."""
    return {
        "token": entry.token,
        "text": entry.piece.decode(errors="replace"),
        "bytes": [*entry.piece],
        "logprob": entry.logprob if math.isfinite(entry.logprob) else None,
    }


class PrefillLine:
    """The line that tells what an answer waits for: its turn, then the reading of its prompt."""

    def __init__(self) -> None:
        self._line = ProgressLine()
        self._started = time.monotonic()

    def queued(self, event: Queued) -> None:
        """Show the place in the queue, where the wait is long enough to wonder."""
        if text := waiting_text(event):
            self._line.show(text)
        else:
            self._line.erase()

    def update(self, event: PrefillProgress) -> None:
        """Show the progress, once reading has taken long enough to wonder."""
        if time.monotonic() - self._started < PROGRESS_AFTER_SECONDS:
            self._line.erase()
            return
        percent = 100 * event.processed_tokens // max(1, event.prompt_tokens)
        left = "" if event.seconds_left is None else f", {_about(event.seconds_left)} left"
        self._line.show(f"reading the prompt: {percent} % of {event.prompt_tokens} tokens{left}")

    def erase(self) -> None:
        """Remove the line, if there is one."""
        self._line.erase()


def waiting_text(event: Queued) -> str:
    """Return where a request stands: `waiting, 3 in front, about 20 s`; empty for a short wait."""
    wait = event.wait_seconds
    if event.queue_position == 0 and (wait is None or wait < PROGRESS_AFTER_SECONDS):
        return ""
    return f"waiting, {event.queue_position} in front" + (
        "" if wait is None else f", {_about(wait)}"
    )


def _about(seconds: float) -> str:
    return f"about {duration(max(1.0, seconds))}"


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
        f"prefill: {counted(read, 'token')} in {times.prefill_seconds:.2f} s{prefill_rate}",
        f"decode:  {counted(decoded, 'token')} in {times.decode_seconds:.2f} s{decode_rate}",
        f"first token after {times.time_to_first_token_seconds:.2f} s",
        f"finish:  {result.finish_reason}",
        f"seed:    {result.seed}",
    ):
        print(printable(line), file=sys.stderr)


def _rate(tokens: int, seconds: float) -> str:
    return f" ({tokens / seconds:.1f} tokens/s)" if tokens and seconds > 0 else ""
