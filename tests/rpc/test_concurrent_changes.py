"""Two changes of the model that are asked for at the same moment: one is made, one refused."""

import asyncio
import threading

import pytest

from llamad.store.registry import ModelRegistry
from rpc.many_models import ManyModels, reason_of, status_of, switching, use
from unit.schedule.fakes import TIMEOUT_SECONDS


@switching
async def test_a_change_that_begins_while_adapters_are_looked_for_is_not_lost(
    life: ManyModels,
) -> None:
    life.put("one", "two", selected="one")
    entered, go_on, taken = threading.Event(), threading.Event(), threading.Lock()

    def times(registry: ModelRegistry) -> dict[str, int]:
        if taken.acquire(blocking=False):  # the first who asks
            entered.set()
            assert go_on.wait(TIMEOUT_SECONDS)
        return {"new": 1}

    async with life.serving() as (stub, admin):
        life.held["two"] = threading.Event()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ModelRegistry, "adapter_times", times)
            again = use(admin, "one")
            await asyncio.to_thread(entered.wait)
            switch = use(admin, "two")
            await life.heard("STATUS=reading two")
            go_on.set()
            assert await reason_of(again) == "BUSY_LOADING"
        life.held["two"].set()
        assert (await switch).model.name == "two"
        assert (await status_of(stub)).model.name == "two"
