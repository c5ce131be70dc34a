"""The asyncio client: ``client.py`` with async and await. One client belongs to one event loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack

import grpc
import grpc.aio

from llamad_api.standard import health_pb2
from llamad_api.v1 import admin_pb2, admin_pb2_grpc, llamad_pb2_grpc
from llamad_api.v1 import llamad_pb2 as pb
from llamad_client import request
from llamad_client.address import Address, Where, read_address
from llamad_client.aio_upload import AsyncOpenAt, upload_from_loop
from llamad_client.answers import Answer, Answers
from llamad_client.channel import open_async_channel
from llamad_client.client import DEFAULT_TIMEOUT_SECONDS
from llamad_client.failure import another_may_answer, client_error
from llamad_client.request import EmbedOptions, Options, RerankOptions, ScoreOptions
from llamad_client.scores import Score, Scores
from llamad_client.values import (
    AddedModel,
    AddedPrefix,
    Event,
    Job,
    Model,
    ModelDetails,
    PrefillProgress,
    Prefix,
    Queued,
    RenderedChat,
    Result,
    Status,
    SubmittedJob,
    TextDelta,
    UsedModel,
    Version,
    event_of,
    value_of,
)
from llamad_client.vectors import Embedding, Ranking

T = TypeVar("T")


class AsyncCompletion:
    """The answer to generate or chat: an asynchronous iterator over pieces of text.

    ``result`` is set at the end. Leaving early: ``cancel()``, or an async with statement.
    """

    def __init__(self, begin: Callable[[], Any], address: Address) -> None:
        """Begin the call; ``begin`` may be called again while no board has begun to answer."""
        self.result: Result | None = None
        self.index = 0  # of the answer that the last event is of, where ``n`` asked for several
        self._begin = begin
        self._tries = address.tries
        self._call = begin()
        self._address = address
        self._cancelled = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        """Return the next piece of text."""
        while (event := await self._next()) is not None:
            if isinstance(event, TextDelta):
                return event.text
        raise StopAsyncIteration

    async def events(self) -> AsyncIterator[Event]:
        """Iterate over all events: queued, prefill progress, text and the end."""
        while (event := await self._next()) is not None:
            yield event

    async def _next(self) -> Event | None:
        """Return the next known event; None at the end."""
        event = None
        while event is None:
            try:
                response = await self._call.read()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if self._cancelled and task is not None and not task.cancelling():
                    return None
                self._call.cancel()  # gRPC does it only where the answer's metadata has come
                raise
            except grpc.RpcError as error:
                self._tries -= 1
                if self._tries <= 0 or not another_may_answer(error):
                    raise client_error(error, self._address) from None
                self._call = self._begin()
                continue
            if self._cancelled or response is grpc.aio.EOF:
                return None
            event = event_of(response)
            self.index = getattr(response, "index", 0)
            if not isinstance(event, Queued | PrefillProgress | None):
                self._tries = 0
        if isinstance(event, Result):
            self.result = event
        return event

    async def answers(self) -> list[Answer]:
        """Wait for the end and return every answer, of a call that asked for ``n``."""
        answers = Answers()
        async for event in self.events():
            answers.add(self.index, event)
        return answers.all()

    async def text(self) -> str:
        """Wait for the end and return all text that was not read yet."""
        return "".join([piece async for piece in self])

    def cancel(self) -> None:
        """End the job; the iteration ends, without a result. After the end it does nothing."""
        self._cancelled = True
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()


class AsyncClient:
    """A connection to the service, made when first used."""

    def __init__(
        self,
        socket: Where | None = None,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    ) -> None:
        """Use this socket, or $LLAMAD_SOCKET, or /run/llamad/llamad.sock.

        socket: also ``https://HOST:PORT``. Several (a list, or with commas between them) take calls
        in turn, those that can answer; one that fails before the first piece of an answer lets
        another try. What each service has of its own (status, jobs, models) needs a client for one.
        timeout_seconds: for every call but generate and chat, which have ``deadline_seconds``, and
        those that add, load and unload models.
        """
        self.address = read_address(socket)
        self._timeout = timeout_seconds
        self._channel = open_async_channel(self.address)
        self._llamad = llamad_pb2_grpc.LlamadStub(self._channel)  # type: ignore[no-untyped-call]
        self._admin = admin_pb2_grpc.AdminStub(self._channel)  # type: ignore[no-untyped-call]
        self._health = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )

    async def close(self) -> None:
        """End the connection and every call on it."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        parse_special: bool = False,
        **options: Unpack[Options],
    ) -> AsyncCompletion:
        """Continue a text, or tokens; ``parse_special`` takes control tokens in a text as such."""
        message = request.generate_request(prompt, parse_special, options)
        return AsyncCompletion(lambda: self._llamad.Generate(message), self.address)

    def chat(
        self, messages: Sequence[Mapping[str, Any]], **options: Unpack[Options]
    ) -> AsyncCompletion:
        """Answer a conversation: messages with ``role`` and ``content``."""
        message = request.chat_request(messages, options)
        return AsyncCompletion(lambda: self._llamad.Chat(message), self.address)

    async def render_chat(
        self, messages: Sequence[Mapping[str, Any]], **options: Unpack[Options]
    ) -> RenderedChat:
        """Return what a chat would give the model to read, as text and as tokens."""
        message = request.render_request(messages, options)
        return value_of(RenderedChat, await self._call(self._llamad.RenderChat, message))

    async def embed(self, texts: Sequence[str], **options: Unpack[EmbedOptions]) -> list[Embedding]:
        """Return the vectors of texts, in their order."""
        responses = await self._read(self._llamad.Embed, request.embed_request(texts, options))
        return [value_of(Embedding, response) for response in responses]

    async def rerank(
        self, query: str, documents: Sequence[str], **options: Unpack[RerankOptions]
    ) -> Ranking:
        """Return documents in the order in which they answer a question; needs a reranker."""
        message = request.rerank_request(query, documents, options)
        return value_of(Ranking, await self._call(self._llamad.Rerank, message))

    async def score(
        self,
        prompt: str | Sequence[int],
        continuations: Sequence[str | Sequence[int]],
        *,
        parse_special: bool = False,
        **options: Unpack[ScoreOptions],
    ) -> list[Score]:
        """Return how likely texts are behind a prompt, in their order; each may be its tokens."""
        message = request.score_request(prompt, continuations, parse_special, options)
        scores = Scores(len(continuations))
        for response in await self._read(self._llamad.Score, message):
            scores.add(response)
        return scores.all

    async def tokenize(
        self, text: str, *, add_bos: bool | None = None, parse_special: bool = False
    ) -> list[int]:
        """Return the token ids of a text; ``add_bos`` None is as the model's metadata says."""
        pieces = await self.token_pieces(text, add_bos=add_bos, parse_special=parse_special)
        return [token for token, _ in pieces]

    async def token_pieces(
        self, text: str, *, add_bos: bool | None = None, parse_special: bool = False
    ) -> list[tuple[int, bytes]]:
        """Return the token ids of a text, each with its bytes."""
        message = request.tokenize_request(text, add_bos, parse_special)
        response = await self._call(self._llamad.Tokenize, message)
        return list(zip(response.tokens, response.pieces, strict=True))

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids."""
        message = request.detokenize_request(tokens)
        return str((await self._call(self._llamad.Detokenize, message)).text)

    async def status(self) -> Status:
        """Return what the service is doing."""
        return value_of(
            Status, await self._call(self._one("the status").GetStatus, pb.GetStatusRequest())
        )

    async def metrics(self) -> str:
        """Return the numbers for a monitoring program, in the text format of Prometheus."""
        return str(
            (await self._call(self._one("the metrics").GetMetrics, pb.GetMetricsRequest())).text
        )

    async def version(self) -> Version:
        """Return the versions of the service, its engine and its interface."""
        return value_of(Version, await self._call(self._llamad.GetVersion, pb.GetVersionRequest()))

    async def get_model(self, name: str = "") -> ModelDetails:
        """Return what is to say of a model; by default of the loaded one."""
        message = request.model_request(pb.GetModelRequest, name)
        response = await self._call(self._llamad.GetModel, message)
        return value_of(ModelDetails, response.model)

    async def jobs(self, *, include_ended: bool = False) -> list[Job]:
        """Return the jobs, newest last."""
        message = pb.ListJobsRequest(include_ended=include_ended)
        response = await self._call(self._one("a job").ListJobs, message)
        return [value_of(Job, job) for job in response.jobs]

    async def submit(
        self,
        prompt: str | Sequence[int] | Sequence[Mapping[str, Any]],
        *,
        idempotency_key: str = "",
        parse_special: bool = False,
        **options: Unpack[Options],
    ) -> SubmittedJob:
        """Queue a job that goes on without this client, also after a restart of the service.

        prompt: a text to continue, its tokens, or the messages of a chat. A second submission with
        the same key returns the first one's job; ``resume`` reads its answer.
        """
        message = request.submit_request(prompt, parse_special, idempotency_key, options)
        return value_of(SubmittedJob, await self._call(self._one("a job").SubmitJob, message))

    def resume(self, job_id: str, *, from_token: int = 0, wait: bool = True) -> AsyncCompletion:
        """Read a job that was submitted, or that is resumable, from a token on.

        from_token: ``tokens`` of the last piece that the caller has. ``wait`` False ends behind
        what is there. ``cancel`` of what is returned ends the reading, and not the job.
        """
        message = request.resume_request(job_id, from_token, wait)
        stub = self._one("a job")
        return AsyncCompletion(lambda: stub.ResumeJob(message), self.address)

    async def job(self, job_id: str) -> Job:
        """Return one job."""
        message = request.job_request(pb.GetJobRequest, job_id)
        return value_of(Job, (await self._call(self._one("a job").GetJob, message)).job)

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job and return it; one that has ended already is no error."""
        message = request.job_request(pb.CancelJobRequest, job_id)
        response = await self._call(self._one("a job").CancelJob, message)
        return value_of(Job, response.job)

    async def models(self) -> list[Model]:
        """Return the models the service knows."""
        response = await self._call(self._models.ListModels, admin_pb2.ListModelsRequest())
        return [value_of(Model, model) for model in response.models]

    async def add_model(
        self,
        name: str,
        open_at: AsyncOpenAt,
        *,
        file_bytes: int | None,
        sha256: str,
        source: str,
        replace: bool = False,
        recommended_sampling: Mapping[str, float] | None = None,
    ) -> AddedModel:
        """Put a model into the service's model directory and return it.

        As ``Client.add_model``; the pieces that ``open_at`` returns are an asynchronous iterable,
        read on the event loop. The call has a connection of its own.
        """
        self.address.require_one("its models")
        start = request.add_model_start(
            name, file_bytes, sha256, source, replace, recommended_sampling
        )
        return await upload_from_loop(start, open_at, self.address)

    async def use_model(self, name: str) -> UsedModel:
        """Load a model of the model directory, now and at every start; wait until it serves."""
        message = request.model_request(admin_pb2.UseModelRequest, name)
        return value_of(UsedModel, await self._call(self._models.UseModel, message, patient=True))

    async def unload_model(self) -> None:
        """Free the memory of the loaded model, once the running jobs have ended."""
        await self._call(self._models.UnloadModel, admin_pb2.UnloadModelRequest(), patient=True)

    async def remove_model(self, name: str) -> int:
        """Delete a model that is not loaded; return the bytes that are free again."""
        message = request.model_request(admin_pb2.RemoveModelRequest, name)
        return int((await self._call(self._models.RemoveModel, message)).freed_bytes)

    async def prefixes(self) -> list[Prefix]:
        """Return the prefixes of everybody and one's own."""
        response = await self._call(self._one("a prefix").ListPrefixes, pb.ListPrefixesRequest())
        return [value_of(Prefix, prefix) for prefix in response.prefixes]

    async def add_prefix(
        self,
        name: str,
        *,
        system: str = "",
        prompt: str = "",
        on_progress: Callable[[int, int], object] | None = None,
    ) -> AddedPrefix:
        """Keep the beginning of prompts for everybody; return when it has been read.

        system: the system message that chats begin with; or prompt: what raw prompts begin with.
        ``on_progress`` gets the tokens read so far, and all.
        """
        call = self._models.AddPrefix(request.add_prefix_request(name, system, prompt))
        done = None
        try:
            async for event in call:
                if event.HasField("progress") and on_progress is not None:
                    on_progress(event.progress.processed_tokens, event.progress.tokens)
                elif event.HasField("done"):
                    done = event.done
        except grpc.RpcError as error:
            raise client_error(error, self.address) from None
        finally:
            call.cancel()
        return value_of(AddedPrefix, done or admin_pb2.AddPrefixResponse.Done())

    async def remove_prefix(self, name: str) -> int:
        """Forget a prefix; return the bytes of the disk that are free again."""
        message = request.model_request(admin_pb2.RemovePrefixRequest, name)
        return int((await self._call(self._models.RemovePrefix, message)).freed_bytes)

    async def health(self) -> str:
        """Return SERVING or NOT_SERVING."""
        response = await self._call(self._health, health_pb2.HealthCheckRequest())
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))

    def _one(self, what: str) -> llamad_pb2_grpc.LlamadStub:
        """Return the stub for calls about what each service has of its own."""
        self.address.require_one(what)
        return self._llamad

    @property
    def _models(self) -> admin_pb2_grpc.AdminStub:
        self.address.require_one("its models")
        return self._admin

    async def _call(self, method: Any, message: Any, *, patient: bool = False) -> Any:
        """Call with the client's timeout, or without any."""
        timeout = None if patient else self._timeout

        async def call() -> Any:
            return await method(message, timeout=timeout)

        return await self._try(call)

    async def _read(self, method: Any, message: Any) -> list[Any]:
        """Return all that a call streams."""

        async def read() -> list[Any]:
            call = method(message)
            try:
                return [response async for response in call]
            finally:
                call.cancel()

        return await self._try(read)

    async def _try(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what the call returns, of the next board where one cannot take it."""
        tries = self.address.tries
        while True:
            try:
                return await call()
            except grpc.RpcError as error:
                tries -= 1
                if not tries or not another_may_answer(error):
                    raise client_error(error, self.address) from None
