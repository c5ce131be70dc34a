"""Jobs and totals belong to the service, not to a model: they stay known when it changes."""

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
