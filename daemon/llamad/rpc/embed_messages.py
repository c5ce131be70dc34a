"""Embed: its message checked, and each text's vector as a message."""

from dataclasses import replace

from llamad.door.caller import Caller
from llamad.errors import invalid
from llamad.jobs.event import Embedded, Finished
from llamad.jobs.request import Embedding, GenerationRequest, Pooling
from llamad.rpc.from_proto import Rules, with_options
from llamad_api.v1 import llamad_pb2 as pb

MAX_TEXTS = 1024
EMBED_AHEAD = 8  # texts of one call that wait or are computed

_POOLINGS = {
    pb.POOLING_UNSPECIFIED: None,
    pb.POOLING_MEAN: Pooling.MEAN,
    pb.POOLING_FIRST: Pooling.FIRST,
    pb.POOLING_LAST: Pooling.LAST,
}


def embed_requests(
    message: pb.EmbedRequest, rules: Rules, request_id: str, caller: Caller | None = None
) -> list[GenerationRequest]:
    """Return the checked request of each text."""
    count = len(message.texts)
    if not 1 <= count <= MAX_TEXTS:
        raise invalid("texts", f"there are {count}, must be 1 to {MAX_TEXTS}")
    if (empty := next((i for i, text in enumerate(message.texts) if not text), None)) is not None:
        raise invalid("texts", f"text {empty} is empty")
    total = sum(len(text.encode()) for text in message.texts)
    if total > rules.max_prompt_bytes:
        raise invalid("texts", f"have {total} bytes in all, at most {rules.max_prompt_bytes}")
    if message.pooling not in _POOLINGS:
        raise invalid("pooling", f"{message.pooling} is no pooling")
    options = pb.Options(
        model=message.model, priority=message.priority, on_behalf_of=message.on_behalf_of
    )
    if message.HasField("deadline_seconds"):
        options.deadline_seconds = message.deadline_seconds
    embedding = Embedding(_POOLINGS[message.pooling], message.truncate)
    base = with_options(
        options, rules, caller, GenerationRequest(embedding=embedding, request_id=request_id)
    )
    return [replace(base, prompt=text) for text in message.texts]


def embed_response(index: int, embedded: Embedded, finished: Finished) -> pb.EmbedResponse:
    """Return the vector of a text."""
    return pb.EmbedResponse(
        index=index,
        values=embedded.vector,
        tokens=finished.prompt_tokens,
        truncated_tokens=embedded.truncated_tokens,
        model=finished.model,
    )
