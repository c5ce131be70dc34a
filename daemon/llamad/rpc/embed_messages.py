"""Embed: its message checked, and each text's vector as a message."""

import math
from collections.abc import Sequence
from dataclasses import replace

from llamad.door.caller import Caller
from llamad.errors import invalid
from llamad.jobs.event import Embedded, Finished
from llamad.jobs.request import Embedding, GenerationRequest, Pooling
from llamad.rpc.from_proto import Rules, with_options
from llamad_api.v1 import llamad_pb2 as pb

MAX_TEXTS = 1024

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
    check_texts("texts", message.texts, rules.max_prompt_bytes)
    if message.HasField("dimensions") and message.dimensions < 1:
        raise invalid("dimensions", "is 0, must be 1 or more")
    if message.pooling not in _POOLINGS:
        raise invalid("pooling", f"{message.pooling} is no pooling")
    embedding = Embedding(_POOLINGS[message.pooling], message.truncate)
    base = GenerationRequest(embedding=embedding, request_id=request_id)
    base = with_options(options_of(message), rules, caller, base)
    return [replace(base, prompt=text) for text in message.texts]


def check_texts(name: str, texts: Sequence[str], max_bytes: int) -> None:
    """Raise what is wrong with the texts of a field: their number, an empty one, their size."""
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise invalid(name, f"there are {len(texts)}, must be 1 to {MAX_TEXTS}")
    if (empty := next((i for i, text in enumerate(texts) if not text), None)) is not None:
        raise invalid(name, f"text {empty} is empty")
    total = sum(len(text.encode()) for text in texts)
    if total > max_bytes:
        raise invalid(name, f"have {total} bytes in all, at most {max_bytes}")


def options_of(message: pb.EmbedRequest | pb.RerankRequest) -> pb.Options:
    """Return the options that texts have in common with other jobs."""
    options = pb.Options(
        model=message.model, priority=message.priority, on_behalf_of=message.on_behalf_of
    )
    if isinstance(message, pb.EmbedRequest) and message.HasField("adapter"):
        options.adapter.CopyFrom(message.adapter)
    if message.HasField("deadline_seconds"):
        options.deadline_seconds = message.deadline_seconds
    return options


def shortened(vector: Sequence[float], wanted: int) -> Sequence[float]:
    """Return the first numbers of a vector, to a length of 1; wanted: 0 for all of them.

    Raises INVALID_DIMENSIONS for more than there are.
    """
    if wanted > len(vector):
        raise invalid("dimensions", f"is {wanted}, the model's vectors have {len(vector)}")
    if wanted in (0, len(vector)):
        return vector
    length = math.hypot(*vector[:wanted])
    return [value / length if length > 0 else 0.0 for value in vector[:wanted]]


def embed_response(
    index: int, embedded: Embedded, finished: Finished, dimensions: int = 0
) -> pb.EmbedResponse:
    """Return the vector of a text."""
    return pb.EmbedResponse(
        index=index,
        values=shortened(embedded.vector, dimensions),
        tokens=finished.prompt_tokens,
        truncated_tokens=embedded.truncated_tokens,
        model=finished.model,
    )
