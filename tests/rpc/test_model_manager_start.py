"""Which model the service loads at a start when the configuration names none."""

import signal
import threading

import grpc
import pytest

from llamad.errors import ErrorKind, LlamadError
from llamad.store.registry import ModelRegistry
from llamad_api.v1 import admin_pb2
from rpc.living import send
from rpc.many_models import (
    ManyModels,
    Status,
    generate,
    status_of,
    switching,
    text_of,
    use,
)


@switching
async def test_several_models_and_no_choice_is_no_failure_but_a_question(
    life: ManyModels,
) -> None:
    life.put("one", "two")
    async with life.serving() as (stub, admin):
        status = await status_of(stub)
        assert status.state == Status.STATE_NO_MODEL
        assert '"llamactl use NAME" loads one: one, two' in status.detail
        await use(admin, "two")
        assert await text_of(generate(stub)) == "An answer."


@switching
async def test_the_only_model_is_still_the_one_to_load_when_others_are_added(
    life: ManyModels,
) -> None:
    life.put("one")
    async with life.serving():
        pass
    life.put("two")
    assert ModelRegistry(life.models).resolve("").name == "one"


@switching
async def test_the_only_model_is_no_choice_while_the_chosen_one_is_away(life: ManyModels) -> None:
    life.put("one", selected="two")
    async with life.serving() as (stub, _):
        assert (await status_of(stub)).model.name == "one"
    assert life.selected == "two"


@switching
async def test_a_directory_that_cannot_be_written_keeps_no_model_from_serving(
    life: ManyModels,
) -> None:
    life.put("one")
    (life.models / ".selected").mkdir()
    async with life.serving() as (stub, _):
        assert (await status_of(stub)).model.name == "one"


@switching
async def test_the_model_that_is_being_loaded_at_a_start_cannot_be_removed(
    life: ManyModels,
) -> None:
    life.put("one", "two")
    (life.models / "alias.gguf").symlink_to("one.gguf")
    ModelRegistry(life.models).select("alias")
    life.held["alias"] = threading.Event()
    life.failing["alias"] = LlamadError(ErrorKind.CORRUPT, "MODEL_CORRUPT", "bad magic")
    async with life.running() as task, life.stub() as stub, life.admin() as admin:
        await life.heard("STATUS=reading alias")
        try:
            for name in ("alias", "one"):  # the link, and what it leads to
                with pytest.raises(grpc.aio.AioRpcError, match="is loaded"):
                    await admin.RemoveModel(admin_pb2.RemoveModelRequest(name=name))
            await admin.RemoveModel(admin_pb2.RemoveModelRequest(name="two"))
        finally:
            life.held["alias"].set()
        await life.heard("READY=1")
        assert (await status_of(stub)).state == Status.STATE_FAILED
        await admin.RemoveModel(admin_pb2.RemoveModelRequest(name="alias"))  # the broken one
        send(signal.SIGTERM)
        await task
