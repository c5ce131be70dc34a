"""A change of the model while requests run: what others hear until it is done, and the journal."""

import asyncio

import grpc
import pytest

from llamad.rpc import admin_service
from llamad.service import model_manager
from rpc.many_models import ManyModels, generate, status_of, switching, text_of, unload, use
from rpc.serving import error_of_call


@switching
async def test_nobody_hears_that_the_model_is_gone_while_its_requests_end(
    life: ManyModels,
) -> None:
    life.put("one")
    async with life.serving() as (stub, admin):
        entered, go_on = life.pause_step()
        answer = generate(stub)
        await asyncio.to_thread(entered.wait)
        unloading = unload(admin)
        await life.heard(f"STATUS={model_manager.UNLOADING}")
        code, message, _ = await error_of_call(use(admin, "one"))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert message.endswith(model_manager.UNLOADING)
        go_on.set()
        assert await text_of(answer) == "An answer."
        await unloading
        assert (await status_of(stub)).detail == model_manager.UNLOADED


@switching
async def test_the_journal_has_the_changes_that_were_not_refused(life: ManyModels) -> None:
    life.put("one", "two", selected="one")
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admin_service.log, "info", lines.append)
        async with life.serving() as (stub, admin):
            entered, go_on = life.pause_step()
            answer = generate(stub)
            await asyncio.to_thread(entered.wait)
            changing = use(admin, "two")
            await life.heard("STATUS=running requests end before two is loaded")
            for refused in (use(admin, "one"), use(admin, "three"), unload(admin)):
                await error_of_call(refused)
            go_on.set()
            await text_of(answer)
            await changing
            await unload(admin)
            await unload(admin)  # with nothing loaded
    assert [line.partition(" user=")[0] for line in lines] == [
        "model chosen model=two",
        "unload asked for",
    ]
