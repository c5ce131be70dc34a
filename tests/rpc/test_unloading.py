"""Unloading while requests run: what others hear until it is done."""

import asyncio

import grpc

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
