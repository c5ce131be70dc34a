"""Jobs and totals belong to the service, not to a model: they stay known when it changes."""

import asyncio
import grp
import os
from typing import Any

from llamad_api.v1 import llamad_pb2 as pb
from rpc.many_models import ManyModels, generate, status_of, switching, text_of, unload, use


@switching
async def test_jobs_and_totals_outlive_their_model(life: ManyModels) -> None:
    life.put("one", "two", selected="one")
    async with life.serving() as (stub, admin):
        assert await text_of(generate(stub)) == "An answer."
        before = await status_of(stub)
        assert before.requests_finished == 1
        assert before.generated_tokens > 0
        [job] = (await stub.ListJobs(pb.ListJobsRequest(include_ended=True))).jobs
        await use(admin, "two")
        changed = await status_of(stub)
        await unload(admin)
        for status in (changed, await status_of(stub)):
            assert status.requests_finished == before.requests_finished
            assert status.generated_tokens == before.generated_tokens
            assert status.prompt_tokens == before.prompt_tokens
        assert (await stub.GetJob(pb.GetJobRequest(id=job.id))).job.model == "one"


@switching
async def test_what_an_owner_used_counts_when_another_model_is_loaded(life: ManyModels) -> None:
    def ask(stub: Any, owner: str) -> Any:
        return stub.Generate(pb.GenerateRequest(prompt="p", options={"on_behalf_of": owner}))

    life.put("one", "two", selected="one")
    group = grp.getgrgid(os.getgid()).gr_name
    async with life.serving(service__gateway_group=group) as (stub, admin):
        await text_of(ask(stub, "greedy"))
        await use(admin, "two")
        entered, go_on = life.pause_step()
        calls = [ask(stub, "somebody")]
        await asyncio.to_thread(entered.wait)
        positions = []
        for owner in ("greedy", "modest"):
            calls.append(ask(stub, owner))
            positions.append((await calls[-1].read()).queued.queue_position)
        go_on.set()
        assert positions == [0, 0]  # modest goes first
        for call in calls:
            await text_of(call)
