"""What the gateway asks of the service for an API: completions, vectors, orders, probabilities.

Owns the connection to the service, how many completions run at once, and in whose name and class
it is asked. What a name of a model means is models.py's, how an answer is sent answering.py's.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from llamad_client import (
    AsyncClient,
    AsyncCompletion,
    ClientError,
    Embedding,
    Ranking,
    RenderedChat,
    Score,
    Status,
)
from llamad_client.request import EmbedOptions, Options, Pooling, RerankOptions, ScoreOptions
from llamad_http.adapters import LoraScale
from llamad_http.administration import Administration
from llamad_http.answering import Answering
from llamad_http.authorization import priority_of
from llamad_http.completion import Asked, CompletionRequest
from llamad_http.config import Config
from llamad_http.errors import busy, from_client_error
from llamad_http.exchange import Exchange
from llamad_http.models import Models, Target
from llamad_http.rerank import RerankRequest

Heard = TypeVar("Heard")


class Gateway:
    """The service, as the APIs use it."""

    def __init__(self, client: AsyncClient, config: Config) -> None:
        self.client = client
        self.administration = Administration(client, config)
        self.models = Models(client, config, self.administration)
        self._config = config
        self._running = 0
        self._stopping = asyncio.Event()

    async def status(self) -> Status:
        """Return what the service is doing. Raises HttpError."""
        return await self.models.status()

    def stop_streams(self) -> None:
        """End what still streams or waits for a model, with an error that says why."""
        self.administration.turns.close()
        self._stopping.set()

    async def complete(self, exchange: Exchange, asked: Asked, *, any_name: bool) -> None:
        """Answer a request for text. Raises HttpError until the answer has begun."""
        wanted = asked.requests[0].model
        if self._running >= self._config.max_completions:
            raise busy(f"{self._running} requests are being answered, the limit")
        self._running += 1
        try:
            async with (
                self.models.through(exchange, wanted, any_name=any_name, lora=asked.lora) as target,
                self._started(exchange, asked.requests, target) as completions,
            ):
                answering = Answering(
                    exchange,
                    asked,
                    target.shown,
                    completions,
                    on_running=target.share.release,
                    stopping=self._stopping,
                    ping_seconds=self._config.ping_seconds,
                )
                await (answering.stream() if asked.stream else answering.whole())
        finally:
            self._running -= 1

    async def embed(
        self,
        exchange: Exchange,
        wanted: str,
        texts: Sequence[str],
        *,
        truncate: bool,
        any_name: bool,
        dimensions: int | None = None,
        pooling: Pooling | None = None,
    ) -> tuple[str, list[Embedding]]:
        """Return the model and the vectors of texts. Raises HttpError, and ClientGoneError."""
        async with self.models.through(exchange, wanted, any_name=any_name) as target:
            options = EmbedOptions(truncate=truncate)
            target.fill(options)
            if dimensions is not None:
                options["dimensions"] = dimensions
            if pooling is not None:
                options["pooling"] = pooling
            _ask_for_caller(exchange, options)
            vectors = self.client.embed(texts, **options)
            return target.shown, await _heard(exchange, vectors)

    async def rerank(
        self, exchange: Exchange, wanted: str, asked: RerankRequest
    ) -> tuple[str, Ranking]:
        """Return the model and the order of documents. Raises HttpError, and ClientGoneError."""
        async with self.models.through(exchange, wanted, any_name=True) as target:
            options = RerankOptions(model=target.model, truncate=asked.truncate)
            if asked.top_n is not None:
                options["top_n"] = asked.top_n
            _ask_for_caller(exchange, options)
            ranking = self.client.rerank(asked.query, asked.documents, **options)
            return target.model, await _heard(exchange, ranking)

    async def score(
        self,
        exchange: Exchange,
        wanted: str,
        prompt: Sequence[int],
        continuation: Sequence[int],
        n_likeliest: int,
        lora: Sequence[LoraScale] | None = None,
    ) -> Score:
        """Return how likely tokens are behind others. Raises HttpError, and ClientGoneError."""
        async with self.models.through(exchange, wanted, any_name=True, lora=lora) as target:
            options = ScoreOptions(likeliest=n_likeliest)
            target.fill(options)
            _ask_for_caller(exchange, options)
            scores = self.client.score(prompt, [continuation], **options)
            return (await _heard(exchange, scores))[0]

    async def render(self, exchange: Exchange, request: CompletionRequest) -> RenderedChat:
        """Return what the messages of a request are to the model. Raises as ``score``."""
        async with self.models.through(exchange, request.model, any_name=True) as target:
            options = Options(**request.options)
            if target.model:
                options["model"] = target.model
            rendered = self.client.render_chat(request.messages or (), **options)
            return await _heard(exchange, rendered)

    @asynccontextmanager
    async def _started(
        self, exchange: Exchange, requests: Sequence[CompletionRequest], target: Target
    ) -> AsyncIterator[list[AsyncCompletion]]:
        """Start a job for each text; whatever happens, none of them outlives the request."""
        completions: list[AsyncCompletion] = []
        try:
            for request in requests:
                options = Options(**request.options)
                target.fill(options)
                _ask_for_caller(exchange, options)
                completions.append(self._start(request, options))
            yield completions
        finally:
            for completion in completions:
                completion.cancel()

    def _start(self, request: CompletionRequest, options: Options) -> AsyncCompletion:
        try:
            if request.messages is not None:
                options.setdefault("context_full", "refuse")  # nothing is cut in silence
                return self.client.chat(request.messages, **options)
            prompt = request.prompt or ""
            special = request.parse_special and isinstance(prompt, str)
            return self.client.generate(prompt, parse_special=special, **options)
        except ClientError as error:
            raise from_client_error(error) from None


async def _heard(exchange: Exchange, call: Coroutine[Any, Any, Heard]) -> Heard:
    """Return what the service answers. Raises HttpError, and ClientGoneError."""
    try:
        return await exchange.unless_gone(call)
    except ClientError as error:
        raise from_client_error(error) from None


def _ask_for_caller(
    exchange: Exchange, options: Options | EmbedOptions | RerankOptions | ScoreOptions
) -> None:
    """Set in the options of a call whose it is, and its class."""
    caller = exchange.caller
    options["priority"] = priority_of(caller, exchange.headers.get("llamad-priority"))
    if caller.owner is not None:
        options["on_behalf_of"] = caller.owner
