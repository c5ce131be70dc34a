"""The unary methods, and what every phase of the service's life answers."""

import dataclasses
from collections.abc import Callable

import grpc
import pytest

from llamad import __version__
from llamad.errors import ErrorKind, LlamadError
from llamad.schedule.draft import DraftCounts
from llamad_api.v1 import admin_pb2
from llamad_api.v1 import llamad_pb2 as pb
from rpc.serving import PLAN, Service, error_of_call, serving
from unit.schedule.fakes import asynchronous, saying

Status = pb.GetStatusResponse


@asynchronous
async def test_tokenize_returns_ids_and_the_bytes_of_each() -> None:
    async with serving() as service, service.stub() as stub:
        reply = await stub.Tokenize(pb.TokenizeRequest(text="aü"))
    assert list(reply.tokens) == list("aü".encode())
    assert b"".join(reply.pieces) == "aü".encode()


@asynchronous
async def test_detokenize_returns_the_text() -> None:
    async with serving() as service, service.stub() as stub:
        reply = await stub.Detokenize(pb.DetokenizeRequest(tokens=list("grün".encode())))
    assert reply.text == "grün"


@asynchronous
async def test_version_names_service_engine_and_interface() -> None:
    async with serving(loaded=False) as service, service.stub() as stub:
        reply = await stub.GetVersion(pb.GetVersionRequest())
    assert (reply.version, reply.engine_version, reply.api_version) == (
        __version__,
        "engine 1",
        "v1",
    )


@asynchronous
async def test_jobs_are_listed_shown_and_watched_to_their_end() -> None:
    async with serving() as service, service.stub() as stub:
        service.bench.engine.rule = saying("text")
        request = pb.GenerateRequest(prompt="p", options=pb.Options(priority=pb.PRIORITY_BATCH))
        entered = service.bench.pause_step(0)
        call = stub.Generate(request)
        job_id = (await call.read()).queued.job_id
        await entered.wait()
        [listed] = (await stub.ListJobs(pb.ListJobsRequest())).jobs
        assert (listed.id, listed.state) == (job_id, pb.JOB_STATE_PREFILL)
        assert listed.priority == pb.PRIORITY_BATCH
        watch = aiter(stub.WatchJob(pb.WatchJobRequest(id=job_id)))
        assert (await anext(watch)).job.state == pb.JOB_STATE_PREFILL
        await stub.CancelJob(pb.CancelJobRequest(id=job_id))
        states = [message.job.state async for message in watch]
        assert states[-1] == pb.JOB_STATE_CANCELLED
        assert not (await stub.ListJobs(pb.ListJobsRequest())).jobs
        [ended] = (await stub.ListJobs(pb.ListJobsRequest(include_ended=True))).jobs
        assert ended.finish_reason == pb.FINISH_REASON_CANCELLED
        again = await stub.CancelJob(pb.CancelJobRequest(id=job_id))
        assert again.job.state == pb.JOB_STATE_CANCELLED
        shown = await stub.GetJob(pb.GetJobRequest(id=job_id))
        assert shown.job.id == job_id


@asynchronous
async def test_models_are_the_directory_and_the_loaded_one() -> None:
    async with serving() as service, service.admin() as admin:
        (service.models / "other.gguf").write_bytes(b"12345")
        (service.models / "notes.txt").write_bytes(b"no model")
        models = (await admin.ListModels(admin_pb2.ListModelsRequest())).models
    assert [(m.name, m.file_bytes, m.loaded) for m in models] == [
        ("fake", 1000, True),
        ("other", 5, False),
    ]


@asynchronous
async def test_status_of_a_loaded_service_tells_model_cache_and_counts() -> None:
    async with serving() as service, service.stub() as stub:
        service.bench.engine.rule = saying("ab")
        async for _ in stub.Generate(pb.GenerateRequest(prompt="four")):
            pass
        status = await stub.GetStatus(pb.GetStatusRequest())
    assert (status.state, status.detail) == (Status.STATE_READY, "serving fake")
    assert (status.model.name, status.model.n_ctx, status.kernel_set) == ("fake", 512, "generic")
    assert (status.requests_finished, status.prompt_tokens, status.generated_tokens) == (1, 4, 3)
    assert status.kv_blocks_total == 64
    kinds = {field.name for field in dataclasses.fields(PLAN)} - {"n_ctx", "expert_share"}
    told = {"n_ctx": status.model.n_ctx, "expert_share": 0.0} | {
        name: getattr(status.memory, name) for name in kinds
    }
    assert told == dataclasses.asdict(PLAN) | {"budget_bytes": 0}
    assert status.memory.token_read_bytes == PLAN.token_read_bytes


@asynchronous
async def test_status_tells_of_a_draft_and_why_it_is_not_used() -> None:
    counts = DraftCounts("small", guessed=20, accepted=7, paused=True, fault="")
    async with serving() as service, service.stub() as stub:
        assert not (await stub.GetStatus(pb.GetStatusRequest())).HasField("draft")
        state = service.state
        assert state.serving is not None
        facts = dataclasses.replace(state.serving.model, draft="small", draft_fault="no room")
        state.serving = dataclasses.replace(state.serving, model=facts)
        unused = (await stub.GetStatus(pb.GetStatusRequest())).draft
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("llamad.schedule.draft.Drafts.counts", lambda drafts: counts)
            used = (await stub.GetStatus(pb.GetStatusRequest())).draft
    assert unused == pb.DraftModel(name="small", fault="no room")
    assert used == pb.DraftModel(name="small", guessed_tokens=20, accepted_tokens=7, paused=True)


def loading(service: Service) -> None:
    service.state.loading("reading big.gguf")


def no_model(service: Service) -> None:
    service.state.no_model("put a .gguf file into /models")


def corrupt(service: Service) -> None:
    service.fail_model(LlamadError(ErrorKind.CORRUPT, "MODEL_CORRUPT", "x.gguf: bad magic"))


def unsupported(service: Service) -> None:
    error = LlamadError(ErrorKind.INVALID, "MODEL_UNSUPPORTED", "architecture 'rwkv'")
    service.fail_model(error)


def stopping(service: Service) -> None:
    service.load()
    service.state.stopping()


PHASES = [
    (loading, Status.STATE_LOADING, grpc.StatusCode.UNAVAILABLE, "MODEL_LOADING", "big.gguf"),
    (no_model, Status.STATE_NO_MODEL, grpc.StatusCode.FAILED_PRECONDITION, "NO_MODEL", "/models"),
    (corrupt, Status.STATE_FAILED, grpc.StatusCode.DATA_LOSS, "MODEL_CORRUPT", "bad magic"),
    (
        unsupported,
        Status.STATE_FAILED,
        grpc.StatusCode.FAILED_PRECONDITION,
        "MODEL_UNSUPPORTED",
        "rwkv",
    ),
    (stopping, Status.STATE_STOPPING, grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", "stopping"),
]


@pytest.mark.parametrize(("enter", "state", "code", "reason", "words"), PHASES)
@asynchronous
async def test_every_phase_answers_status_and_says_why_it_cannot_generate(
    enter: Callable[[Service], None], state: int, code: grpc.StatusCode, reason: str, words: str
) -> None:
    async with serving(loaded=False) as service, service.stub() as stub:
        enter(service)
        status = await stub.GetStatus(pb.GetStatusRequest())
        assert status.state == state
        assert words in status.detail
        for call in (
            stub.Generate(pb.GenerateRequest(prompt="p")),
            stub.Chat(pb.ChatRequest(messages=[pb.Message(role="user", content="x")])),
            stub.Tokenize(pb.TokenizeRequest(text="t")),
            stub.Detokenize(pb.DetokenizeRequest(tokens=[1])),
        ):
            got, message, metadata = await error_of_call(call)
            assert (got, metadata["llamad-reason"]) == (code, reason)
            assert words in message


@asynchronous
async def test_without_a_model_there_are_no_jobs() -> None:
    async with serving(loaded=False) as service, service.stub() as stub:
        assert not (await stub.ListJobs(pb.ListJobsRequest(include_ended=True))).jobs
        code, _, metadata = await error_of_call(stub.GetJob(pb.GetJobRequest(id="j1")))
    assert (code, metadata["llamad-reason"]) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


def test_no_phase_follows_stopping() -> None:
    from llamad.service.state import Phase, ServiceState

    state = ServiceState()
    state.stopping()
    state.loading("late")
    state.no_model("late")
    state.failed(LlamadError(ErrorKind.CORRUPT, "MODEL_CORRUPT", "late"))
    assert (state.phase, state.detail) == (Phase.STOPPING, "stopping")
