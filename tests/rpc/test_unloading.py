"""A model leaves memory, or the disk: unloading, removing, adding, and what of it is left."""

import gc
import re
import signal
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from llamad.engine import bindings
from llamad.service import model_manager
from llamad.service.loading import load
from llamad.store.registry import ModelRegistry
from llamad_api.v1 import admin_pb2
from llamad_api.v1 import llamad_pb2 as pb
from rpc.living import Life, send
from rpc.many_models import (
    ManyModels,
    Status,
    generate,
    status_of,
    switching,
    text_of,
    unload,
    use,
)
from rpc.serving import error_of_call
from tiny_gguf import TinyModelPath, TinySpec
from unit.schedule.fakes import asynchronous

# ---- unloading and removing ------------------------------------------------------------------


@switching
async def test_unloading_frees_the_model_and_says_how_to_load_one(life: ManyModels) -> None:
    life.put("one")
    async with life.serving() as (stub, admin):
        await unload(admin)
        assert life.opened[0].closed
        assert await life.heard("no model") == f"STATUS={model_manager.UNLOADED}"
        status = await status_of(stub)
        assert (status.state, status.detail) == (Status.STATE_NO_MODEL, model_manager.UNLOADED)
        code, message, metadata = await error_of_call(generate(stub))
        assert (code, message) == (grpc.StatusCode.FAILED_PRECONDITION, model_manager.UNLOADED)
        assert metadata["llamad-reason"] == "NO_MODEL"
        await unload(admin)
        await use(admin, "one")
        assert await text_of(generate(stub)) == "An answer."


@switching
async def test_what_only_refers_to_itself_leaves_the_memory_with_the_model(
    life: ManyModels,
) -> None:
    class Vocabulary:
        itself: object

    life.put("one")
    async with life.serving() as (_, admin):
        vocabulary = Vocabulary()
        vocabulary.itself = vocabulary
        remembered = weakref.ref(vocabulary)
        gc.disable()
        try:
            del vocabulary
            await unload(admin)
            assert remembered() is None
        finally:
            gc.enable()


@switching
async def test_unloading_without_a_model_leaves_the_advice_as_it_is(life: ManyModels) -> None:
    async with life.serving() as (stub, admin):
        await unload(admin)
        assert (await status_of(stub)).detail == model_manager.NO_MODEL_YET


@switching
async def test_a_model_in_use_is_not_removed_and_one_that_is_not_is(life: ManyModels) -> None:
    life.put("one", "two", selected="one")
    async with life.serving() as (_, admin):
        code, message, metadata = await error_of_call(
            admin.RemoveModel(admin_pb2.RemoveModelRequest(name="one"))
        )
        assert (code, metadata["llamad-reason"]) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "MODEL_IN_USE",
        )
        assert "llamactl unload" in message
        removed = await admin.RemoveModel(admin_pb2.RemoveModelRequest(name="two"))
        assert removed.freed_bytes == 4
        await unload(admin)
        await admin.RemoveModel(admin_pb2.RemoveModelRequest(name="one"))
    assert list(life.models.glob("*.gguf")) == []
    assert life.selected == ""


@switching
async def test_a_model_that_is_added_is_named_and_loaded_only_when_asked_for(
    life: ManyModels,
) -> None:
    async with life.serving() as (stub, admin):
        assert (await status_of(stub)).detail == model_manager.NO_MODEL_YET
        calls = admin.AddModel(iter_of(add_requests("new", tiny_bytes())))
        async for message in calls:
            last = message
        assert last.done.model.name == "new"
        assert life.loads == []
        assert '"llamactl use new"' in (await status_of(stub)).detail
        await use(admin, "new")
        assert (await status_of(stub)).model.name == "new"


def tiny_bytes() -> bytes:
    """Return the smallest file with the header of a model: no metadata, no tensors."""
    return b"GGUF" + (3).to_bytes(4, "little") + bytes(16)


def add_requests(name: str, data: bytes) -> list[admin_pb2.AddModelRequest]:
    start = admin_pb2.AddModelRequest.Start(name=name)
    chunk = admin_pb2.AddModelRequest.Chunk(offset=0, data=data)
    return [admin_pb2.AddModelRequest(start=start), admin_pb2.AddModelRequest(chunk=chunk)]


async def iter_of(messages: list[Any]) -> AsyncIterator[Any]:
    for message in messages:
        yield message


# ---- real models -----------------------------------------------------------------------------


def mapped_of(folder: Path) -> set[str]:
    """Return the names of the model files of a folder that this process maps."""
    path = re.escape(f"{folder}/") + r"(\w+)\.gguf$"
    return set(re.findall(path, Path("/proc/self/maps").read_text(), re.MULTILINE))


def test_at_most_one_model_is_mapped_and_none_after_unloading(
    tiny_model_path: TinyModelPath, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real_stop_flag = bindings.StopFlag
    life = Life(tmp_path, monkeypatch)
    monkeypatch.setattr(model_manager, "load", load)
    monkeypatch.setattr(bindings, "StopFlag", real_stop_flag)
    models = tmp_path / "models"
    models.mkdir()

    def mapped() -> set[str]:
        return mapped_of(models)

    for name, seed in (("one", 1), ("two", 2)):
        (models / f"{name}.gguf").write_bytes(tiny_model_path(TinySpec(seed=seed)).read_bytes())
    ModelRegistry(models).select("one")
    small = {
        "model__threads": 1,
        "model__ctx_size": 64,
        "model__lock": False,
        "model__huge_pages": "off",
    }

    @asynchronous
    async def body() -> None:
        async with (
            life.running(**small) as task,  # type: ignore[arg-type]
            life.stub() as stub,
            life.admin() as admin,
        ):
            await life.heard("READY=1")
            assert mapped() == {"one"}
            first = (await status_of(stub)).model.name
            await use(admin, "two")
            assert (first, mapped()) == ("one", {"two"})
            request = pb.GenerateRequest(prompt="p", options=pb.Options(max_tokens=3))
            async for message in stub.Generate(request):
                last = message
            assert last.finished.model == "two"
            await unload(admin)
            assert mapped() == set()
            await use(admin, "one")
            assert mapped() == {"one"}
            send(signal.SIGTERM)
            await task
        assert mapped() == set()

    body()
    life.close()
