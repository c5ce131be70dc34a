"""What the gateway does with the service: models by name, and completions from request to answer.

Owns the connection to the service. It streams, keeps silent streams alive, and cancels the jobs of
a client that left. It knows no API: an ``AnswerWriter`` says what is sent.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from llamad_client import (
    AsyncClient,
    AsyncCompletion,
    ClientError,
    Embedding,
    Event,
    Ranking,
    RenderedChat,
    Result,
    Score,
    Status,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from llamad_client.request import EmbedOptions, Options, RerankOptions, ScoreOptions
from llamad_http.adapters import Adapter, LoraScale, chosen, loaded_adapters, not_loaded
from llamad_http.administration import Administration
from llamad_http.authorization import Caller, priority_of
from llamad_http.completion import Answer, Asked, CompletionRequest, ModelEntry
from llamad_http.config import Config
from llamad_http.errors import HttpError, busy, from_client_error
from llamad_http.exchange import ClientGoneError, Exchange
from llamad_http.rerank import RerankRequest


@dataclass(frozen=True, slots=True)
class Target:
    """What a request goes through. shown: the name that its answer has, the adapter's if asked."""

    model: str
    adapter: Adapter | None
    shown: str


class Gateway:
    """The service, as the APIs use it."""

    def __init__(self, client: AsyncClient, config: Config) -> None:
        self.client = client
        self.config = config
        self.administration = Administration(client, config)
        self.usual_adapter: Adapter | None = None  # of requests that say nothing of adapters
        self._running = 0
        self._stopping: asyncio.Event = asyncio.Event()

    # ---- models -------------------------------------------------------------------------------

    async def status(self) -> Status:
        """Return what the service is doing. Raises HttpError."""
        try:
            return await self.client.status()
        except ClientError as error:
            raise from_client_error(error) from None

    async def models(self) -> list[ModelEntry]:
        """Return every model, by name. Raises HttpError."""
        try:
            models = await self.client.models()
        except ClientError as error:
            raise from_client_error(error) from None
        entries = [
            ModelEntry(model.name, model.loaded, model.file_bytes, is_adapter=model.is_adapter)
            for model in models
        ]
        return sorted(entries, key=lambda entry: entry.name)

    def true_name(self, name: str) -> str:
        """Return what the configuration calls a model, of which a request has another name."""
        return self.config.aliases.get(name, name)

    async def find(self, wanted: str) -> str | None:
        """Return the model that a request means by a name, None for none. Raises HttpError."""
        entry = await self.entry(wanted)
        return None if entry is None else entry.name

    async def entry(self, wanted: str) -> ModelEntry | None:
        """Return the model, or adapter, that a name means, None for none. Raises HttpError."""
        name = self.true_name(wanted)
        return next((m for m in await self.models() if same_name(m.name, name)), None)

    async def target(
        self,
        wanted: str,
        caller: Caller,
        *,
        any_name: bool,
        lora: Sequence[LoraScale] | None = None,
    ) -> "Target":
        """Return what answers for a name of a request, as ``resolve``; a name may be an adapter's.

        lora: what the request says of adapters; where it says nothing and names none, the usual one
        is taken. Raises HttpError.
        """
        status = await self.status()
        name = self.true_name(wanted)
        found = next((one for one in status.adapters if same_name(one.name, name)), None)
        if found is not None and found.fault:
            raise not_loaded(found.name, found.fault)
        model = await self._model("" if found else wanted, caller, status, any_name=any_name)
        if status.model is None or status.model.name != model:  # it has been loaded
            status = await self.status()
        if lora is not None:
            return Target(model, chosen(lora, status), model if found is None else found.name)
        if found is not None:
            return Target(model, Adapter(found.name), found.name)
        usual = self.usual_adapter
        if usual is not None and usual.name not in loaded_adapters(status):
            usual = None
        return Target(model, usual, model)

    async def resolve(self, wanted: str, caller: Caller, *, any_name: bool) -> str:
        """Return the name of the model that answers for a name of a request. Raises HttpError.

        A model that is not loaded is loaded where the caller may have that.

        any_name: a name of no model is the loaded model's, because many clients name a model of a
        cloud where nobody chose one.
        """
        return await self._model(wanted, caller, await self.status(), any_name=any_name)

    async def _model(self, wanted: str, caller: Caller, status: Status, *, any_name: bool) -> str:
        name = self.true_name(wanted)
        loaded = status.model.name if status.model is not None else ""
        if not name or (loaded and same_name(name, loaded)):
            return loaded
        entry = await self.entry(wanted)
        if entry is not None and entry.is_adapter:
            raise not_loaded(entry.name, "")
        found = None if entry is None else entry.name
        if found is not None and self.administration.may_use(caller):
            await self.administration.use(found)
            return found
        if found is None and any_name and self.config.any_model_name:
            return loaded
        if found is None:
            message = f"model {wanted[:128]!r} not found"
        else:
            message = f"model {found!r} is not loaded; {loaded!r} is, llamactl use changes it"
        raise HttpError(404, "MODEL_NOT_FOUND", message, field="model")

    # ---- completions --------------------------------------------------------------------------

    def stop_streams(self) -> None:
        """End what still streams, with an error that says why."""
        self._stopping.set()

    async def complete(self, exchange: Exchange, asked: Asked, *, any_name: bool) -> None:
        """Answer a request for text. Raises HttpError until the answer has begun."""
        wanted = asked.requests[0].model
        target = await self.target(wanted, exchange.caller, any_name=any_name, lora=asked.lora)
        if self._running >= self.config.max_completions:
            raise busy(f"{self._running} requests are being answered, the limit")
        self._running += 1
        try:
            async with self._started(exchange, asked.requests, target) as completions:
                run = Run(self, exchange, asked, target.shown, completions)
                await (run.stream() if asked.stream else run.whole())
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
    ) -> tuple[str, list[Embedding]]:
        """Return the model and the vectors of texts. Raises HttpError, and ClientGoneError."""
        target = await self.target(wanted, exchange.caller, any_name=any_name)
        caller = exchange.caller
        options = EmbedOptions(
            model=target.model,
            truncate=truncate,
            priority=priority_of(caller, exchange.headers.get("llamad-priority")),
        )
        if target.adapter is not None:
            options["adapter"] = target.adapter.name
            options["adapter_scale"] = target.adapter.scale
        if dimensions is not None:
            options["dimensions"] = dimensions
        if caller.owner is not None:
            options["on_behalf_of"] = caller.owner
        try:
            return target.shown, await exchange.unless_gone(self.client.embed(texts, **options))
        except ClientError as error:
            raise from_client_error(error) from None

    async def rerank(
        self, exchange: Exchange, wanted: str, asked: RerankRequest
    ) -> tuple[str, Ranking]:
        """Return the model and the order of documents. Raises HttpError, and ClientGoneError."""
        caller = exchange.caller
        model = await self.resolve(wanted, caller, any_name=True)
        options = RerankOptions(
            model=model,
            truncate=asked.truncate,
            priority=priority_of(caller, exchange.headers.get("llamad-priority")),
        )
        if asked.top_n is not None:
            options["top_n"] = asked.top_n
        if caller.owner is not None:
            options["on_behalf_of"] = caller.owner
        try:
            ranking = self.client.rerank(asked.query, asked.documents, **options)
            return model, await exchange.unless_gone(ranking)
        except ClientError as error:
            raise from_client_error(error) from None

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
        caller = exchange.caller
        target = await self.target(wanted, caller, any_name=True, lora=lora)
        options = ScoreOptions(
            model=target.model,
            likeliest=n_likeliest,
            priority=priority_of(caller, exchange.headers.get("llamad-priority")),
        )
        if target.adapter is not None:
            options["adapter"] = target.adapter.name
            options["adapter_scale"] = target.adapter.scale
        if caller.owner is not None:
            options["on_behalf_of"] = caller.owner
        try:
            scores = self.client.score(prompt, [continuation], **options)
            return (await exchange.unless_gone(scores))[0]
        except ClientError as error:
            raise from_client_error(error) from None

    async def render(self, request: CompletionRequest, caller: Caller) -> RenderedChat:
        """Return what the messages of a request are to the model. Raises HttpError."""
        model = (await self.target(request.model, caller, any_name=True)).model
        options = Options(**request.options)
        if model:
            options["model"] = model
        try:
            return await self.client.render_chat(request.messages or (), **options)
        except ClientError as error:
            raise from_client_error(error) from None

    @asynccontextmanager
    async def _started(
        self, exchange: Exchange, requests: Sequence[CompletionRequest], target: "Target"
    ) -> AsyncIterator[list[AsyncCompletion]]:
        """Start a job for each text; whatever happens, none of them outlives the request."""
        completions: list[AsyncCompletion] = []
        caller = exchange.caller
        wanted = exchange.headers.get("llamad-priority")
        try:
            for request in requests:
                options = Options(**request.options)
                if target.model:
                    options["model"] = target.model
                if target.adapter is not None:
                    options["adapter"] = target.adapter.name
                    options["adapter_scale"] = target.adapter.scale
                options["priority"] = priority_of(caller, wanted)
                if caller.owner is not None:
                    options["on_behalf_of"] = caller.owner
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

    @property
    def stopping(self) -> asyncio.Event:
        """Return the event after which streams end."""
        return self._stopping


class Run:
    """The jobs of one request, read side by side."""

    def __init__(
        self,
        gateway: Gateway,
        exchange: Exchange,
        asked: Asked,
        model: str,
        completions: Sequence[AsyncCompletion],
    ) -> None:
        self._config = gateway.config
        self._stopping = gateway.stopping
        self._exchange = exchange
        self._asked = asked
        self._writer = asked.writer
        self._model = model
        self._answers = [Answer() for _ in completions]
        self._events = [completion.events() for completion in completions]

    async def stream(self) -> None:
        """Send a stream. What goes wrong before each job has told an event is raised, as a status.

        So one that the service refuses refuses the request, which its client may then send again.
        """
        begun = False
        held: list[tuple[int, Event | None]] = []
        unheard = set(range(len(self._answers)))
        try:
            async for index, event in self._read():
                held.append((index, event))
                unheard.discard(index)
                if unheard and event is not None and not begun:
                    continue
                if not begun:
                    await self._exchange.begin_stream(self._writer.stream_type)
                    await self._exchange.write(self._writer.begin(self._model))
                    begun = True
                for one, told in held:
                    await self._exchange.write(
                        self._writer.idle() if told is None else self._writer.event(one, told)
                    )
                held.clear()
            await self._exchange.write(self._writer.end(self._answers))
        except HttpError as error:
            if not begun:
                raise
            self._exchange.remark = error.reason
            await self._exchange.write(self._writer.failure(error))
        await self._exchange.end_stream()

    async def whole(self) -> None:
        """Answer when all is there."""
        async for index, event in self._read():
            if isinstance(event, TextDelta):
                self._answers[index].text += event.text
                if event.logprob is not None:
                    self._answers[index].logprobs.append(event.logprob)
            elif isinstance(event, ThinkingDelta):
                self._answers[index].thinking += event.text
            elif isinstance(event, ToolCallDelta):
                self._answers[index].calls.add(event)
        await self._exchange.respond_json(self._writer.whole(self._model, self._answers))

    async def _read(self) -> AsyncIterator[tuple[int, Event | None]]:
        """Iterate over the events of all jobs as they come; None after each silence.

        Raises HttpError, and ClientGoneError.
        """
        gone = asyncio.ensure_future(self._exchange.until_gone())
        stopping = asyncio.ensure_future(self._stopping.wait())
        waiting = {_next(events): index for index, events in enumerate(self._events)}
        heard = False
        try:
            while waiting:
                seconds = self._config.ping_seconds if heard else None
                done, _ = await asyncio.wait(
                    {gone, stopping, *waiting},
                    timeout=seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if gone in done and self._unfinished():
                    raise ClientGoneError
                if stopping in done:
                    message = "the gateway is stopping"
                    raise HttpError(503, "STOPPING", message, retry_after_seconds=2)
                if not done:
                    yield 0, None
                for task in [task for task in waiting if task in done]:
                    index = waiting.pop(task)
                    event = _result(task)
                    if event is None:
                        self._check_end(index)
                        continue
                    heard = True
                    waiting[_next(self._events[index])] = index
                    if isinstance(event, Result):
                        self._answers[index].result = event
                        self._exchange.remark = f"tokens={event.completion_tokens}"
                        self._check_end(index)
                    yield index, event
        finally:
            for future in (gone, stopping, *waiting):
                future.cancel()
            await asyncio.gather(gone, stopping, *waiting, return_exceptions=True)

    def _unfinished(self) -> bool:
        """Whether a text is not whole: some clients close as soon as they have what they need."""
        return any(answer.result is None for answer in self._answers)

    def _check_end(self, index: int) -> None:
        result = self._answers[index].result
        if result is None or result.finish_reason == "cancelled":
            raise HttpError(503, "CANCELLED", "the job was cancelled")


def _next(events: AsyncIterator[Event]) -> "asyncio.Task[Event | None]":
    async def take() -> Event | None:
        return await anext(events, None)

    return asyncio.create_task(take())


def _result(task: "asyncio.Task[Event | None]") -> Event | None:
    try:
        return task.result()
    except ClientError as error:
        raise from_client_error(error) from None


def same_name(one: str, other: str) -> bool:
    """Whether two names are one model's: Ollama's ``qwen2.5:1.5b`` is our ``qwen2.5-1.5b``."""
    return plain_name(one) == plain_name(other)


def plain_name(name: str) -> str:
    """Return our form of a name that Ollama's programs give a model."""
    return name.removesuffix(":latest").replace(":", "-").casefold()
