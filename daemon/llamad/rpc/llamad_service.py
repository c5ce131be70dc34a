"""The methods of llamad.v1.Llamad: each converts, calls the scheduler, and converts back.

Owns no state. Errors are raised, the interceptor ends the call with them; a vanished client cancels
the coroutine, and leaving a job's stream cancels the job.
"""
# ruff: noqa: N802 - the methods are named by llamad.proto

import asyncio
import dataclasses
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from llamad import __version__
from llamad.board import Heat
from llamad.door.rights import check_cancel, check_owner
from llamad.errors import invalid
from llamad.jobs.book import JobBook
from llamad.jobs.event import Event
from llamad.jobs.job import Job
from llamad.jobs.request import GenerationRequest, owner_name
from llamad.logs import fields
from llamad.rpc import from_proto as convert
from llamad.rpc.answers import check_whole, request_of_each, side_by_side
from llamad.rpc.embed_messages import embed_requests, embed_response
from llamad.rpc.interceptor import caller, request_id
from llamad.rpc.model_messages import model_response, rules_of
from llamad.rpc.prefix_messages import prefix
from llamad.rpc.rerank_messages import rerank_requests, rerank_response
from llamad.rpc.score_messages import SCORED_TOGETHER, Score, score_requests
from llamad.rpc.text_vectors import text_vectors
from llamad.schedule.draft import DraftCounts
from llamad.service.durable_jobs import DurableJobs
from llamad.service.model_details import KnownModels
from llamad.service.monitor import Monitor
from llamad.service.state import ModelFacts, Phase, ServiceState
from llamad.users import user_name
from llamad_api.v1 import llamad_pb2 as pb
from llamad_api.v1 import llamad_pb2_grpc

log = logging.getLogger(__name__)

LLAMAD_NAME = pb.DESCRIPTOR.services_by_name["Llamad"].full_name

_STATES = {
    Phase.LOADING: pb.GetStatusResponse.STATE_LOADING,
    Phase.READY: pb.GetStatusResponse.STATE_READY,
    Phase.NO_MODEL: pb.GetStatusResponse.STATE_NO_MODEL,
    Phase.FAILED: pb.GetStatusResponse.STATE_FAILED,
    Phase.STOPPING: pb.GetStatusResponse.STATE_STOPPING,
}

PART_TOKENS = 8192  # of an answer that are in memory as a message
TOKEN_BYTES = 4  # of text, about, that a token stands for

Context = Any  # grpc.aio.ServicerContext: grpc has no types


class LlamadService(llamad_pb2_grpc.LlamadServicer):
    """Generation, tokenization, jobs and status."""

    def __init__(
        self,
        state: ServiceState,
        book: JobBook,
        jobs: DurableJobs,
        rules: convert.Rules,
        engine_version: str,
        models: KnownModels,
        monitor: Monitor,
    ) -> None:
        self._monitor = monitor
        self._state = state
        self._models = models
        self._describing = asyncio.Lock()  # one head of a file at a time is in memory
        self._book = book
        self._jobs = jobs
        self._rules = rules
        self._engine_version = engine_version

    def change_rules(self, rules: convert.Rules, models: KnownModels) -> None:
        """Set the defaults and bounds of the requests that come from now on."""
        self._rules = rules
        self._models = models

    def rules_now(self) -> convert.Rules:
        """Return the rules of the loaded model; the configuration's, while none is loaded."""
        if self._state.serving is None:
            return self._rules
        return rules_of(self._rules, self._models.of_loaded(self._state.serving.model))

    # Generate and Chat return the generator that holds the job, so that closing it frees the job.

    def Generate(
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Continue a prompt."""
        checked = convert.generation_request(
            request, self.rules_now(), request_id.get(), caller.get()
        )
        events = self._events if checked.n == 1 else self._answers
        return events(checked, pb.GenerateResponse)

    def Chat(self, request: pb.ChatRequest, context: Context) -> AsyncIterator[pb.ChatResponse]:
        """Answer a conversation."""
        checked = convert.chat_request(request, self.rules_now(), request_id.get(), caller.get())
        events = self._events if checked.n == 1 else self._answers
        return events(checked, pb.ChatResponse)

    async def _events(
        self, request: GenerationRequest, kind: type[convert.Response]
    ) -> AsyncIterator[convert.Response]:
        scheduler, seconds = self._state.require().scheduler, request.resumable_seconds
        if seconds:
            job = await self._jobs.resumable.submit(scheduler, request, seconds)
        else:
            job = await scheduler.submit(request)
        del request  # its text is not kept while the answer is made
        async with aclosing(job.stream) as stream:
            async for event in stream:
                yield convert.response(event, kind)

    async def _answers(
        self, request: GenerationRequest, kind: type[convert.Answering]
    ) -> AsyncIterator[convert.Answering]:
        """Submit a job for each answer; none of them outlives the call."""
        requests = request_of_each(request)
        del request  # its text is not kept while the answers are made
        async with aclosing(self._together(requests)) as events:
            async for index, event in events:
                yield convert.numbered_response(event, index, kind)

    async def _together(
        self, requests: list[GenerationRequest]
    ) -> AsyncGenerator[tuple[int, Event], None]:
        """Submit requests; yield their events side by side, with the number of each one's request.

        ``requests`` is emptied. No job outlives the iteration.
        """
        scheduler = self._state.require().scheduler
        jobs: list[Job] = []
        try:
            while requests:
                jobs.append(await scheduler.submit(requests.pop(0)))
            async with aclosing(side_by_side([job.stream for job in jobs])) as events:
                async for numbered in events:
                    yield numbered
        finally:
            for job in jobs:
                await job.stream.aclose()

    def Score(self, request: pb.ScoreRequest, context: Context) -> AsyncIterator[pb.ScoreResponse]:
        """Return how likely texts are behind a prompt."""
        checked = score_requests(request, self.rules_now(), request_id.get(), caller.get())
        return self._scores(checked)

    async def _scores(self, requests: list[GenerationRequest]) -> AsyncIterator[pb.ScoreResponse]:
        """Score a few continuations together, then the next ones."""
        for first in range(0, len(requests), SCORED_TOGETHER):
            group = requests[first : first + SCORED_TOGETHER]
            scores = [Score(first + i) for i in range(len(group))]
            async with aclosing(self._together(group)) as events:
                async for index, event in events:
                    check_whole(event)
                    message = scores[index].response(event)
                    if message is not None:
                        yield message

    async def RenderChat(
        self, request: pb.RenderChatRequest, context: Context
    ) -> pb.RenderChatResponse:
        """Return what Chat would give the model to read."""
        checked = convert.chat_request(
            request.chat, self.rules_now(), request_id.get(), caller.get()
        )
        serving = self._state.require()
        prompt = await serving.scheduler.render(checked)
        pieces = (serving.codec.piece(token, special=True) for token in prompt.tokens)
        return pb.RenderChatResponse(
            text=b"".join(pieces).decode(errors="replace"),
            tokens=prompt.tokens,
            dropped_messages=prompt.dropped_messages,
        )

    def Embed(self, request: pb.EmbedRequest, context: Context) -> AsyncIterator[pb.EmbedResponse]:
        """Return the vectors of texts."""
        checked = embed_requests(request, self.rules_now(), request_id.get(), caller.get())
        return self._embeddings(checked, request.dimensions)

    async def _embeddings(
        self, requests: list[GenerationRequest], dimensions: int
    ) -> AsyncIterator[pb.EmbedResponse]:
        async with aclosing(text_vectors(self._state.require().scheduler, requests)) as vectors:
            index = 0
            async for embedded, finished in vectors:
                yield embed_response(index, embedded, finished, dimensions)
                index += 1

    async def Rerank(self, request: pb.RerankRequest, context: Context) -> pb.RerankResponse:
        """Return documents in the order in which they answer a question."""
        checked = rerank_requests(request, self.rules_now(), request_id.get(), caller.get())
        top_n = request.top_n if request.HasField("top_n") else None
        async with aclosing(text_vectors(self._state.require().scheduler, checked)) as vectors:
            return rerank_response([found async for found in vectors], top_n)

    async def Tokenize(self, request: pb.TokenizeRequest, context: Context) -> bytes:
        """Return the token ids of a text, and the bytes of each, in a message's bytes.

        Bytes of messages in a row are those of one message with the fields of all: made in parts,
        an answer of a million tokens takes 6 MB instead of 70.
        """
        text = convert.tokenize_text(request, self._rules)
        add_bos = request.add_bos if request.HasField("add_bos") else None
        serving = self._state.require()
        codec = serving.codec

        def work() -> bytes:
            ids = codec.encode(text, add_bos=add_bos, parse_special=request.parse_special)
            return b"".join(
                pb.TokenizeResponse(
                    tokens=part, pieces=(codec.piece(token) for token in part)
                ).SerializeToString()
                for part in (ids[i : i + PART_TOKENS] for i in range(0, len(ids), PART_TOKENS))
            )

        return await serving.scheduler.tokenize(work, len(text))

    async def Detokenize(
        self, request: pb.DetokenizeRequest, context: Context
    ) -> pb.DetokenizeResponse:
        """Return the text of token ids."""
        serving = self._state.require()
        vocab_size = serving.model.vocab_size

        def work() -> pb.DetokenizeResponse:
            ids = convert.detokenize_tokens(request)
            for i, token in enumerate(ids):
                if not 0 <= token < vocab_size:
                    raise invalid("tokens", f"token {i} is {token}, must be 0 to {vocab_size - 1}")
            return pb.DetokenizeResponse(text=serving.codec.decode(ids))

        return await serving.scheduler.tokenize(work, TOKEN_BYTES * len(request.tokens))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """Return the jobs, newest last, whatever models they had."""
        jobs = await self._jobs.list(include_ended=request.include_ended)
        return pb.ListJobsResponse(jobs=[convert.job(snapshot) for snapshot in jobs])

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        """Return one job."""
        job_id = convert.job_id(request)
        return pb.GetJobResponse(job=convert.job(await self._jobs.find(job_id)))

    async def CancelJob(
        self, request: pb.CancelJobRequest, context: Context
    ) -> pb.CancelJobResponse:
        """Cancel a job of the caller's, or any for an administrator."""
        job_id, by = convert.job_id(request), caller.get()
        job = await self._jobs.find(job_id)
        check_cancel(job, by)
        if by.uid != job.owner_uid and user_name(by.uid) != job.owner:
            log.info(fields("request of somebody else", job=job_id, cancelled_by=user_name(by.uid)))
        if not job.state.ended:
            job = self._book.cancel(job_id)
        return pb.CancelJobResponse(job=convert.job(job))

    async def WatchJob(
        self, request: pb.WatchJobRequest, context: Context
    ) -> AsyncIterator[pb.WatchJobResponse]:
        """Yield a job now and after each change, until it ends."""
        job = await self._jobs.find(convert.job_id(request))
        if job.state.ended:
            yield pb.WatchJobResponse(job=convert.job(job))
            return
        async for snapshot in self._book.watch(job.id):
            yield pb.WatchJobResponse(job=convert.job(snapshot))

    async def SubmitJob(
        self, request: pb.SubmitJobRequest, context: Context
    ) -> pb.SubmitJobResponse:
        """Queue a job that nobody has to wait for; it is on the disk with the answer."""
        checked, digest = convert.submitted_request(
            request, self.rules_now(), request_id.get(), caller.get()
        )
        job, existing = await self._jobs.submit(
            checked, key=request.idempotency_key, request_digest=digest
        )
        return pb.SubmitJobResponse(job=convert.job(job), existing=existing)

    async def ResumeJob(
        self, request: pb.ResumeJobRequest, context: Context
    ) -> AsyncIterator[pb.ResumeJobResponse]:
        """Yield the events of a job of the caller's from a token on."""
        by = caller.get()
        reader = await self._jobs.resume(
            convert.job_id(request),
            request.from_token,
            wait=not request.no_wait,
            allow=lambda job: check_owner(job, by, "read it"),
        )
        async with aclosing(reader) as events:
            async for event in events:
                yield convert.response(event, pb.ResumeJobResponse)

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Return what a model's file says, and the settings that its requests get."""
        serving = self._state.serving
        name = request.name or self._state.require().model.name
        facts = None if serving is None else serving.model
        async with self._describing:
            details, settings = await asyncio.to_thread(self._models.describe, name, facts)
        is_loaded = facts is not None and facts.path == os.fspath(details.file.path)
        return model_response(
            details, settings, n_ctx=facts.n_ctx if facts is not None and is_loaded else None
        )

    async def ListPrefixes(
        self, request: pb.ListPrefixesRequest, context: Context
    ) -> pb.ListPrefixesResponse:
        """Return the prefixes of everybody and those of the caller."""
        serving = self._state.require()
        kept = await serving.prefixes.list(owner_name(caller.get().uid, ""))
        name = serving.model.name
        return pb.ListPrefixesResponse(prefixes=[prefix(entry, name) for entry in kept])

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        """Return what the service is doing, in every phase of its life."""
        heat = await self._monitor.heat()
        state = self._state
        response = pb.GetStatusResponse(
            state=_STATES[state.phase],
            detail=state.detail,
            uptime_seconds=state.uptime_seconds,
            requests_finished=self._book.totals.finished,
            generated_tokens=self._book.totals.generated_tokens,
            prompt_tokens=self._book.totals.prompt_tokens,
            board=_board(heat),
            jobs_stored=self._jobs.n_stored,
            durability=self._jobs.fault,
        )
        if state.serving is not None:
            _add_model(response, state)
        return response

    async def GetMetrics(
        self, request: pb.GetMetricsRequest, context: Context
    ) -> pb.GetMetricsResponse:
        """Return the numbers for a monitoring program."""
        return pb.GetMetricsResponse(text=await self._monitor.metrics())

    async def GetVersion(
        self, request: pb.GetVersionRequest, context: Context
    ) -> pb.GetVersionResponse:
        """Return the versions of the service, the engine and the interface."""
        return pb.GetVersionResponse(
            version=__version__, engine_version=self._engine_version, api_version="v1"
        )


def _board(heat: Heat) -> pb.Board:
    """Return what the board tells; the rest stays absent."""
    told: dict[str, Any] = {
        "temperature_celsius": heat.celsius,
        "throttled": heat.throttled,
        "under_voltage": heat.under_voltage,
        "throttled_before": heat.throttled_before,
        "under_voltage_before": heat.under_voltage_before,
    }
    return pb.Board(**{name: value for name, value in told.items() if value is not None})


def _add_model(response: pb.GetStatusResponse, state: ServiceState) -> None:
    """Fill in what there is to say once a model is loaded."""
    assert state.serving is not None
    model, counts = state.serving.model, state.serving.scheduler.counts()
    measured = state.serving.measured()
    response.model.CopyFrom(
        pb.LoadedModel(
            name=model.name,
            path=model.path,
            architecture=model.architecture,
            file_bytes=model.file_bytes,
            locked_bytes=measured.locked_bytes,
            n_ctx=model.n_ctx,
            n_ctx_train=model.n_ctx_train,
            vocab_size=model.vocab_size,
            load_seconds=model.load_seconds,
            kv_type=model.kv_type,
            streamed_bytes=measured.streamed_bytes,
            bytes_read_per_token=measured.bytes_read_per_token,
            seconds_per_token=counts.seconds_per_token,
            disk_read_bytes_per_second=measured.disk_read_bytes_per_second,
            share_of_disk_time_hidden=measured.share_of_disk_time_hidden,
            expert_uses=measured.expert_uses,
            expert_hits=measured.expert_hits,
        )
    )
    plan = dataclasses.asdict(model.plan)
    del plan["n_ctx"], plan["expert_share"]  # LoadedModel has the one, token_read_bytes the other
    plan["token_read_bytes"] = model.plan.token_read_bytes
    response.memory.CopyFrom(pb.MemoryPlan(**{key: value or 0 for key, value in plan.items()}))
    response.kv_bytes = model.kv_bytes
    response.threads = model.threads
    response.kernel_set = model.kernel_set
    response.jobs_queued = counts.queued
    response.jobs_running = counts.running
    response.queue_capacity = counts.queue_capacity
    response.sequence_slots = counts.sequence_slots
    response.kv_blocks_total = counts.kv_blocks_total
    response.kv_blocks_free = counts.kv_blocks_free
    response.kv_blocks_cached = counts.kv_blocks_cached
    response.prefix.CopyFrom(
        pb.PrefixCache(
            hits=counts.prefix.hits,
            misses=counts.prefix.misses,
            tokens_reused=counts.prefix.tokens_reused,
            **state.serving.prefixes.disk_bytes(),
        )
    )
    response.adapters.extend(
        pb.AdapterStatus(name=name, fault=fault) for name, fault in model.adapters.items()
    )
    if model.draft:
        response.draft.CopyFrom(_draft(model, counts.draft))


def _draft(model: ModelFacts, counts: DraftCounts | None) -> pb.DraftModel:
    if counts is None:
        return pb.DraftModel(name=model.draft, fault=model.draft_fault)
    return pb.DraftModel(
        name=counts.name,
        guessed_tokens=counts.guessed,
        accepted_tokens=counts.accepted,
        paused=counts.paused,
        fault=counts.fault,
    )
