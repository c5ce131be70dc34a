"""Rerank: its message checked, and the scores of all documents as one message."""

import math
from collections.abc import Sequence
from dataclasses import replace

from llamad.door.caller import Caller
from llamad.errors import invalid
from llamad.jobs.event import Embedded, Finished
from llamad.jobs.request import Embedding, GenerationRequest
from llamad.rpc.embed_messages import check_texts, options_of
from llamad.rpc.from_proto import Rules, with_options
from llamad_api.v1 import llamad_pb2 as pb


def rerank_requests(
    message: pb.RerankRequest, rules: Rules, request_id: str, caller: Caller | None = None
) -> list[GenerationRequest]:
    """Return the checked request of each document."""
    if not message.query:
        raise invalid("query", "is empty")
    query_bytes = len(message.query.encode())
    if query_bytes > rules.max_prompt_bytes:
        raise invalid("query", f"has {query_bytes} bytes, at most {rules.max_prompt_bytes}")
    check_texts("documents", message.documents, rules.max_prompt_bytes - query_bytes)
    if message.HasField("top_n") and message.top_n < 1:
        raise invalid("top_n", "is 0, must be 1 or more")
    embedding = Embedding(truncates=message.truncate, query=message.query)
    base = GenerationRequest(embedding=embedding, request_id=request_id)
    base = with_options(options_of(message), rules, caller, base)
    return [replace(base, prompt=text) for text in message.documents]


def rerank_response(
    found: Sequence[tuple[Embedded, Finished]], top_n: int | None
) -> pb.RerankResponse:
    """Return the documents' scores, the best first; found: of each document."""
    ranked = [
        pb.RankedDocument(
            index=index,
            score=probability(embedded.vector),
            truncated_tokens=embedded.truncated_tokens,
        )
        for index, (embedded, _) in enumerate(found)
    ]
    ranked.sort(key=lambda document: -document.score)
    return pb.RerankResponse(
        results=ranked[:top_n],
        prompt_tokens=sum(finished.prompt_tokens for _, finished in found),
        model=found[0][1].model,
    )


def probability(scores: Sequence[float]) -> float:
    """Return how likely a text answers: of one score's logistic function, or of yes against no."""
    difference = scores[0] - (scores[1] if len(scores) > 1 else 0.0)
    if difference < 0:
        return math.exp(difference) / (1 + math.exp(difference))
    return 1 / (1 + math.exp(-difference))
