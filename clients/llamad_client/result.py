"""What comes back from generate and chat: events, and the result at the end."""

from dataclasses import dataclass

from llamad_api.v1 import llamad_pb2 as pb

Event = pb.Queued | pb.PrefillProgress | pb.TextDelta | pb.Finished


@dataclass(frozen=True, slots=True)
class Timings:
    """Durations in seconds, as defined at ``Timings`` in llamad.proto."""

    queue_seconds: float
    prefill_seconds: float
    decode_seconds: float
    time_to_first_token_seconds: float
    time_per_output_token_seconds: float
    load_seconds: float


@dataclass(frozen=True, slots=True)
class Result:
    """How a completion ended. ``finish_reason``: stop, stop_string, length or cancelled."""

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cached_prompt_tokens: int
    timings: Timings
    seed: int
    job_id: str
    model: str
    stop_string: str


def event_of(response: pb.GenerateResponse | pb.ChatResponse) -> Event | None:
    """Return the event of a response; None for one that this version does not know."""
    match response.WhichOneof("event"):
        case "delta":
            return response.delta
        case "queued":
            return response.queued
        case "prefill":
            return response.prefill
        case "finished":
            return response.finished
        case _:
            return None


def result_of(finished: pb.Finished) -> Result:
    """Return the last event as a result."""
    times = finished.timings
    return Result(
        finish_reason=pb.FinishReason.Name(finished.reason).removeprefix("FINISH_REASON_").lower(),
        prompt_tokens=finished.usage.prompt_tokens,
        completion_tokens=finished.usage.completion_tokens,
        cached_prompt_tokens=finished.usage.cached_prompt_tokens,
        timings=Timings(
            queue_seconds=times.queue_seconds,
            prefill_seconds=times.prefill_seconds,
            decode_seconds=times.decode_seconds,
            time_to_first_token_seconds=times.time_to_first_token_seconds,
            time_per_output_token_seconds=times.time_per_output_token_seconds,
            load_seconds=times.load_seconds,
        ),
        seed=finished.seed,
        job_id=finished.job_id,
        model=finished.model,
        stop_string=finished.stop_string,
    )
