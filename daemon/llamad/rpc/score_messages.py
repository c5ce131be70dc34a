"""Score: its message checked, and the probabilities of each continuation as messages."""

import math
from dataclasses import replace

from llamad.door.caller import Caller
from llamad.errors import invalid
from llamad.jobs.event import Delta, Event, Finished
from llamad.jobs.request import GenerationRequest, Scoring
from llamad.rpc.from_proto import MAX_LOGPROBS, Rules, generation_request, token_logprob
from llamad_api.v1 import llamad_pb2 as pb

MAX_CONTINUATIONS = 64
SCORED_TOGETHER = 8  # continuations of one call that wait or are computed


def score_requests(
    message: pb.ScoreRequest, rules: Rules, request_id: str, caller: Caller | None = None
) -> list[GenerationRequest]:
    """Return the checked request of each continuation."""
    count = len(message.continuations)
    if not 1 <= count <= MAX_CONTINUATIONS:
        raise invalid("continuations", f"there are {count}, must be 1 to {MAX_CONTINUATIONS}")
    total = sum(len(one.text.encode()) + len(one.tokens) for one in message.continuations)
    if total > rules.max_prompt_bytes:
        raise invalid("continuations", f"have {total} bytes, at most {rules.max_prompt_bytes}")
    if message.likeliest > MAX_LOGPROBS:
        raise invalid("likeliest", f"is {message.likeliest}, must be 0 to {MAX_LOGPROBS}")
    options = pb.Options(
        model=message.model,
        priority=message.priority,
        on_behalf_of=message.on_behalf_of,
        logprobs=message.likeliest,
        loop_guard=False,
    )
    if message.HasField("adapter"):
        options.adapter.CopyFrom(message.adapter)
    if message.HasField("deadline_seconds"):
        options.deadline_seconds = message.deadline_seconds
    generate = pb.GenerateRequest(
        prompt=message.prompt, prompt_tokens=message.prompt_tokens, options=options
    )
    if message.HasField("parse_special") and not message.prompt_tokens:
        generate.parse_special = message.parse_special
    base = generation_request(generate, rules, request_id, caller)
    return [
        replace(base, scoring=_scoring(i, one, message.parse_special))
        for i, one in enumerate(message.continuations)
    ]


def _scoring(index: int, continuation: pb.Continuation, parse_special: bool) -> Scoring:
    if bool(continuation.text) == bool(continuation.tokens):
        raise invalid("continuations", f"number {index} must have a text or tokens")
    return Scoring(continuation.text, tuple(continuation.tokens), parse_special)


class Score:
    """What is told of one continuation, event by event."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._logprobs: list[float] = []

    def response(self, event: Event) -> pb.ScoreResponse | None:
        """Return an event of its job as a message, if it tells something."""
        match event:
            case Delta(logprobs=bytes() as packed) if packed:
                token = token_logprob(packed)
                self._logprobs.append(token.logprob)
                return pb.ScoreResponse(index=self._index, token=token)
            case Finished():
                return pb.ScoreResponse(index=self._index, scored=self._scored(event))
        return None

    def _scored(self, finished: Finished) -> pb.Scored:
        return pb.Scored(
            logprob=math.fsum(self._logprobs),
            tokens=len(self._logprobs),
            prompt_tokens=finished.prompt_tokens,
            cached_prompt_tokens=finished.cached_prompt_tokens,
            model=finished.model,
        )
