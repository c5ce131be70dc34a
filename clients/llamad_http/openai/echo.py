"""``echo`` of ``/v1/completions``: the prompt in front of its completion, with its probabilities.

Programs that measure models send a text with ``echo`` and ``logprobs`` and read how likely it is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llamad_client import ClientError, TokenLogprob
from llamad_http.adapters import LoraScale
from llamad_http.completion import Asked, CompletionRequest
from llamad_http.errors import from_client_error
from llamad_http.exchange import Exchange
from llamad_http.gateway import Gateway


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt as its answer repeats it. told: its tokens; the first has no probability (NaN)."""

    text: str
    told: Sequence[TokenLogprob] = ()


async def read_echoes(gateway: Gateway, exchange: Exchange, asked: Asked) -> list[Echo]:
    """Return the echo of each request's prompt. Raises HttpError, and ClientGoneError."""
    echoes: dict[int, Echo] = {}  # by the prompt, which several answers may have
    for request in asked.requests:
        if id(request.prompt) not in echoes:
            echoes[id(request.prompt)] = await _echo(gateway, exchange, request, asked.lora)
    return [echoes[id(request.prompt)] for request in asked.requests]


async def _echo(
    gateway: Gateway,
    exchange: Exchange,
    request: CompletionRequest,
    lora: Sequence[LoraScale] | None,
) -> Echo:
    client, prompt = gateway.client, request.prompt or ""
    n_likeliest = request.options.get("logprobs")
    try:
        text = prompt if isinstance(prompt, str) else await client.detokenize(prompt)
        if n_likeliest is None:
            return Echo(text)
        if isinstance(prompt, str):
            pieces = await client.token_pieces(prompt, parse_special=True)
        else:
            first = await client.detokenize(prompt[:1])
            pieces = [(prompt[0], first.encode()), *((token, b"") for token in prompt[1:])]
    except ClientError as error:
        raise from_client_error(error) from None
    head = TokenLogprob(pieces[0][0], pieces[0][1], math.nan)
    rest = [token for token, _ in pieces[1:]]
    if not rest:
        return Echo(text, [head])
    model = request.model
    score = await gateway.score(exchange, model, [head.token], rest, n_likeliest, lora)
    return Echo(text, [head, *score.tokens])
