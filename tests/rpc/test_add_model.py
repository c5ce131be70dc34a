"""AddModel and RemoveModel over the wire: the order of messages, what is kept, who may when."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest

from llamad_api.v1 import admin_pb2 as pb
from rpc.serving import MAX_MODEL_BYTES, Service, error_of_call, serving
from unit.schedule.fakes import asynchronous

# The smallest file with the header of a model (version 3, no metadata, no tensors), and a tail.
MODEL = b"GGUF" + (3).to_bytes(4, "little") + bytes(16) + bytes(range(256)) * 40
SHA256 = hashlib.sha256(MODEL).hexdigest()


def start(name: str = "m", **fields: Any) -> pb.AddModelRequest:
    described = {"file_bytes": len(MODEL), "sha256": SHA256, "source": "s"}
    return pb.AddModelRequest(start=pb.AddModelRequest.Start(name=name, **{**described, **fields}))


def chunk(offset: int, data: bytes) -> pb.AddModelRequest:
    return pb.AddModelRequest(chunk=pb.AddModelRequest.Chunk(offset=offset, data=data))


async def messages(requests: Sequence[pb.AddModelRequest]) -> AsyncIterator[pb.AddModelRequest]:
    for request in requests:
        yield request


async def add(admin: Any, *requests: pb.AddModelRequest) -> list[pb.AddModelResponse]:
    return [response async for response in admin.AddModel(messages(requests))]


async def failure_of(admin: Any, *requests: pb.AddModelRequest) -> tuple[grpc.StatusCode, str, str]:
    code, message, metadata = await error_of_call(admin.AddModel(messages(requests)))
    return code, metadata["llamad-reason"], message


def files(service: Service) -> list[str]:
    return sorted(path.name for path in service.models.iterdir())


@asynchronous
async def test_a_model_arrives_and_is_listed() -> None:
    async with serving(loaded=False) as service, service.admin() as admin:
        accepted, done = await add(admin, start(), chunk(0, MODEL[:7]), chunk(7, MODEL[7:]))
        assert accepted.accepted.offset == 0
        model = done.done.model
        assert (model.name, model.path) == ("m", str(service.models / "m.gguf"))
        assert (model.file_bytes, model.loaded, model.selected) == (len(MODEL), False, True)
        assert (done.done.sha256, done.done.unchanged) == (SHA256, False)
        assert service.memory.added == ["m"]
        [listed] = (await admin.ListModels(pb.ListModelsRequest())).models
        assert listed == model
    assert service.state.serving is None


@asynchronous
async def test_the_same_model_again_is_done_at_once() -> None:
    async with serving() as service, service.admin() as admin:
        await add(admin, start(), chunk(0, MODEL))
        [done] = await add(admin, start())
        assert (done.done.unchanged, done.done.sha256) == (True, SHA256)
        assert service.memory.added == ["m"]


@asynchronous
async def test_a_client_that_leaves_finds_its_bytes_again() -> None:
    async with serving() as service, service.admin() as admin:
        call = admin.AddModel()
        await call.write(start())
        await call.read()
        await call.write(chunk(0, MODEL[:1000]))
        await call.write(chunk(1000, MODEL[1000:2000]))
        # Written messages may still be on their way: a call that ends in order has them all.
        await call.done_writing()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call.read()
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert (await admin.ListModels(pb.ListModelsRequest())).models[0].name == "fake"
        accepted, done = await add(admin, start(), chunk(2000, MODEL[2000:]))
        assert accepted.accepted.offset == 2000
        assert done.done.sha256 == SHA256
        assert files(service) == ["m.gguf"]


@asynchronous
async def test_a_cancelled_call_frees_the_name_and_is_gone_on_from() -> None:
    async with serving() as service, service.admin() as admin:
        call = admin.AddModel()
        await call.write(start())
        await call.read()
        assert await failure_of(admin, start()) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "TRANSFER_RUNNING",
            "a transfer of model m is running, wait until it ends",
        )
        _, _, metadata = await error_of_call(admin.RemoveModel(pb.RemoveModelRequest(name="m")))
        assert metadata["llamad-reason"] == "TRANSFER_RUNNING"
        assert len(await add(admin, start("other"), chunk(0, MODEL))) == 2
        call.cancel()
        while (await failure_of(admin, start()))[1] == "TRANSFER_RUNNING":
            pass
        assert len(await add(admin, start(), chunk(0, MODEL))) == 2


LARGE = MAX_MODEL_BYTES + 1


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        ([], "INVALID_START"),
        ([chunk(0, MODEL)], "INVALID_START"),
        ([pb.AddModelRequest()], "INVALID_START"),
        ([start("")], "INVALID_NAME"),
        ([start("x" * 129)], "INVALID_NAME"),
        ([start("../m")], "INVALID_NAME"),
        ([start(".m")], "INVALID_NAME"),
        ([start("m\n")], "INVALID_NAME"),
        ([start("mü")], "INVALID_NAME"),
        ([start("a b")], "INVALID_NAME"),
        ([start(sha256="abc")], "INVALID_SHA256"),
        ([start(sha256="g" * 64)], "INVALID_SHA256"),
        ([start(file_bytes=0)], "INVALID_FILE_BYTES"),
        ([start(file_bytes=LARGE)], "INVALID_FILE_BYTES"),
        ([start(source="x" * 4097)], "INVALID_SOURCE"),
        ([start(), start()], "INVALID_CHUNK"),
        ([start(), chunk(0, b"")], "INVALID_DATA"),
        ([start(file_bytes=1 << 24), chunk(0, b"GGUF" + bytes(4 << 20))], "INVALID_DATA"),
        ([start(), chunk(5, MODEL)], "INVALID_OFFSET"),
        ([start(), chunk((1 << 64) - 1, MODEL)], "INVALID_OFFSET"),
    ],
)
@asynchronous
async def test_a_field_outside_its_range_is_named(
    requests: list[pb.AddModelRequest], reason: str
) -> None:
    async with serving() as service, service.admin() as admin:
        code, got, message = await failure_of(admin, *requests)
        assert (code, got) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
        assert message.startswith(reason.removeprefix("INVALID_").lower() + ": ")
        assert files(service) == []


@asynchronous
async def test_upper_case_hashes_are_the_same_hashes() -> None:
    async with serving() as service, service.admin() as admin:
        assert len(await add(admin, start(sha256=SHA256.upper()), chunk(0, MODEL))) == 2


@asynchronous
async def test_an_error_page_and_a_wrong_hash_are_refused_with_data_loss() -> None:
    async with serving() as service, service.admin() as admin:
        page = await failure_of(admin, start(), chunk(0, b"<html>not found</html>"))
        assert page[:2] == (grpc.StatusCode.DATA_LOSS, "MODEL_CORRUPT")
        wrong = await failure_of(admin, start(sha256="0" * 64), chunk(0, MODEL))
        assert wrong[:2] == (grpc.StatusCode.DATA_LOSS, "CHECKSUM_MISMATCH")
        assert files(service) == []


@asynchronous
async def test_a_loaded_model_is_neither_replaced_nor_removed() -> None:
    async with serving() as service, service.admin() as admin:
        await add(admin, start(), chunk(0, MODEL))
        await admin.UseModel(pb.UseModelRequest(name="m"))
        other = start(sha256="", file_bytes=5, replace=True)
        code, reason, message = await failure_of(admin, other)
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_IN_USE")
        assert "llamactl unload" in message
        _, _, metadata = await error_of_call(admin.RemoveModel(pb.RemoveModelRequest(name="m")))
        assert metadata["llamad-reason"] == "MODEL_IN_USE"
        assert files(service) == [".selected", "m.gguf"]


@asynchronous
async def test_removing_deletes_a_model_or_what_is_kept_and_names_what_is_not_there() -> None:
    async with serving() as service, service.admin() as admin:
        await failure_of(admin, start(), chunk(0, MODEL[:100]))
        assert files(service) == [".m.gguf.part", ".m.gguf.part.json"]
        removed = await admin.RemoveModel(pb.RemoveModelRequest(name="m"))
        assert (removed.freed_bytes, files(service)) == (100, [])
        for name, expected in (("m", "MODEL_NOT_FOUND"), ("../m", "INVALID_NAME")):
            call = admin.RemoveModel(pb.RemoveModelRequest(name=name))
            _, _, metadata = await error_of_call(call)
            assert metadata["llamad-reason"] == expected
