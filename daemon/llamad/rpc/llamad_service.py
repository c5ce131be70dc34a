"""The methods of llamad.v1.Llamad: each converts, calls the scheduler, and converts back.

Owns no state. Errors are raised, the interceptor ends the call with them; a vanished client cancels
the coroutine, and leaving a job's stream cancels the job.
"""
# ruff: noqa: N802 - the methods are named by llamad.proto

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, TypeVar

from llamad import __version__
from llamad.door.rights import check_cancel
from llamad.errors import ErrorKind, LlamadError, invalid
from llamad.jobs.request import GenerationRequest
from llamad.rpc import from_proto as convert
from llamad.rpc.interceptor import caller, request_id
from llamad.schedule.loop import Scheduler
from llamad.service.state import Phase, ServiceState
from llamad_api.v1 import llamad_pb2 as pb
from llamad_api.v1 import llamad_pb2_grpc

LLAMAD_NAME = pb.DESCRIPTOR.services_by_name["Llamad"].full_name

_STATES = {
    Phase.LOADING: pb.GetStatusResponse.STATE_LOADING,
    Phase.READY: pb.GetStatusResponse.STATE_READY,
    Phase.NO_MODEL: pb.GetStatusResponse.STATE_NO_MODEL,
    Phase.FAILED: pb.GetStatusResponse.STATE_FAILED,
    Phase.STOPPING: pb.GetStatusResponse.STATE_STOPPING,
}

_Answer = TypeVar("_Answer")
PART_TOKENS = 8192  # of an answer that are in memory as a message

Context = Any  # grpc.aio.ServicerContext: grpc has no types


class LlamadService(llamad_pb2_grpc.LlamadServicer):
    """Generation, tokenization, jobs and status."""

    def __init__(self, state: ServiceState, rules: convert.Rules, engine_version: str) -> None:
        self._state = state
        self._rules = rules
        self._engine_version = engine_version
        # One text at a time: a million tokens take tens of megabytes until their answer is read.
        self._text_thread = ThreadPoolExecutor(1, thread_name_prefix="text")

    def change_rules(self, rules: convert.Rules) -> None:
        """Set the defaults and bounds of the requests that come from now on."""
        self._rules = rules

    # Generate and Chat return the generator that holds the job, so that closing it frees the job.

    def Generate(
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Continue a prompt."""
        checked = convert.generation_request(
            request, self._rules, request_id.get(), caller.get().uid
        )
        return self._events(checked, pb.GenerateResponse)

    def Chat(self, request: pb.ChatRequest, context: Context) -> AsyncIterator[pb.ChatResponse]:
        """Answer a conversation."""
        checked = convert.chat_request(request, self._rules, request_id.get(), caller.get().uid)
        return self._events(checked, pb.ChatResponse)

    async def _events(
        self, request: GenerationRequest, kind: type[convert.Response]
    ) -> AsyncIterator[convert.Response]:
        job = await self._state.require().scheduler.submit(request)
        async with aclosing(job.stream) as stream:
            async for event in stream:
                yield convert.response(event, kind)

    async def Tokenize(self, request: pb.TokenizeRequest, context: Context) -> bytes:
        """Return the token ids of a text, and the bytes of each, in a message's bytes.

        Bytes of messages in a row are those of one message with the fields of all: made in parts,
        an answer of a million tokens takes 6 MB instead of 70.
        """
        text = convert.tokenize_text(request)
        add_bos = request.add_bos if request.HasField("add_bos") else None
        codec = self._state.require().codec

        def work() -> bytes:
            ids = codec.encode(text, add_bos=add_bos, parse_special=request.parse_special)
            return b"".join(
                pb.TokenizeResponse(
                    tokens=part, pieces=(codec.piece(token) for token in part)
                ).SerializeToString()
                for part in (ids[i : i + PART_TOKENS] for i in range(0, len(ids), PART_TOKENS))
            )

        return await self._on_text_thread(work)

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

        return await self._on_text_thread(work)

    async def _on_text_thread(self, work: Callable[[], _Answer]) -> _Answer:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._text_thread, work)

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """Return the jobs, newest last; there are none before the first model is loaded."""
        serving = self._state.serving
        jobs = [] if serving is None else serving.scheduler.list(request.include_ended)
        return pb.ListJobsResponse(jobs=[convert.job(snapshot) for snapshot in jobs])

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        """Return one job."""
        job_id = convert.job_id(request)
        return pb.GetJobResponse(job=convert.job(self._scheduler_of(job_id).get(job_id)))

    async def CancelJob(
        self, request: pb.CancelJobRequest, context: Context
    ) -> pb.CancelJobResponse:
        """Cancel a job of the caller's, or any for an administrator."""
        job_id = convert.job_id(request)
        scheduler = self._scheduler_of(job_id)
        check_cancel(scheduler.get(job_id), caller.get())
        return pb.CancelJobResponse(job=convert.job(scheduler.cancel(job_id)))

    async def WatchJob(
        self, request: pb.WatchJobRequest, context: Context
    ) -> AsyncIterator[pb.WatchJobResponse]:
        """Yield a job now and after each change, until it ends."""
        job_id = convert.job_id(request)
        async for snapshot in self._scheduler_of(job_id).watch(job_id):
            yield pb.WatchJobResponse(job=convert.job(snapshot))

    def _scheduler_of(self, job_id: str) -> Scheduler:
        if self._state.serving is None:
            raise LlamadError(ErrorKind.NOT_FOUND, "JOB_NOT_FOUND", f"no job {job_id!r}")
        return self._state.serving.scheduler

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        """Return what the service is doing, in every phase of its life."""
        state = self._state
        response = pb.GetStatusResponse(
            state=_STATES[state.phase], detail=state.detail, uptime_seconds=state.uptime_seconds
        )
        if state.serving is not None:
            _add_model(response, state)
        return response

    async def GetVersion(
        self, request: pb.GetVersionRequest, context: Context
    ) -> pb.GetVersionResponse:
        """Return the versions of the service, the engine and the interface."""
        return pb.GetVersionResponse(
            version=__version__, engine_version=self._engine_version, api_version="v1"
        )


def _add_model(response: pb.GetStatusResponse, state: ServiceState) -> None:
    """Fill in what there is to say once a model is loaded."""
    assert state.serving is not None
    model, counts = state.serving.model, state.serving.scheduler.counts()
    response.model.CopyFrom(
        pb.LoadedModel(
            name=model.name,
            path=model.path,
            architecture=model.architecture,
            file_bytes=model.file_bytes,
            locked_bytes=model.locked_bytes,
            n_ctx=model.n_ctx,
            n_ctx_train=model.n_ctx_train,
            vocab_size=model.vocab_size,
            load_seconds=model.load_seconds,
            kv_type=model.kv_type,
        )
    )
    response.kv_bytes = model.kv_bytes
    response.threads = model.threads
    response.kernel_set = model.kernel_set
    response.jobs_queued = counts.queued
    response.jobs_running = counts.running
    response.queue_capacity = counts.queue_capacity
    response.sequence_slots = counts.sequence_slots
    response.kv_blocks_total = counts.kv_blocks_total
    response.kv_blocks_free = counts.kv_blocks_free
    response.requests_finished = counts.requests_finished
    response.generated_tokens = counts.generated_tokens
    response.prompt_tokens = counts.prompt_tokens
