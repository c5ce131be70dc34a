"""One model in memory after the other: switching, going back, stopping, and who hears what."""

import asyncio
import signal
import threading
from pathlib import Path

import grpc
import grpc.aio
import pytest

from llamad.errors import ErrorKind, LlamadError
from llamad.store import registry as registry_module
from llamad_api.v1 import admin_pb2
from llamad_api.v1 import llamad_pb2 as pb
from rpc.living import send
from rpc.many_models import (
    ManyModels,
    Status,
    generate,
    reason_of,
    status_of,
    switching,
    text_of,
    unload,
    use,
)
from rpc.serving import error_of_call
from unit.schedule.fakes import TIMEOUT_SECONDS

CORRUPT = LlamadError(ErrorKind.CORRUPT, "MODEL_CORRUPT", "two.gguf: bad magic")


# ---- switching -------------------------------------------------------------------------------


@switching
async def test_running_requests_end_before_the_model_changes_and_new_ones_come_back_later(
    life: ManyModels,
) -> None:
    life.put("one", "two", selected="one")
    life.held["two"] = threading.Event()
    async with life.serving() as (stub, admin):
        entered, go_on = life.pause_step()
        running = generate(stub)
        await running.read()
        await asyncio.to_thread(entered.wait)
        switch = use(admin, "two")
        await life.heard("STATUS=running requests end before two is loaded")
        code, _, metadata = await error_of_call(generate(stub))
        assert (code, metadata["llamad-reason"]) == (grpc.StatusCode.UNAVAILABLE, "MODEL_LOADING")
        assert float(metadata["llamad-retry-after"]) > 0
        status = await status_of(stub)
        assert (status.state, status.jobs_running) == (Status.STATE_LOADING, 1)
        go_on.set()
        assert await text_of(running) == "An answer."
        await life.heard("STATUS=reading two")
        assert await reason_of(generate(stub)) == "MODEL_LOADING"
        status = await status_of(stub)
        assert (status.state, status.HasField("model")) == (Status.STATE_LOADING, False)
        life.held["two"].set()
        used = await switch
        assert (used.model.name, used.model.loaded, used.model.selected) == ("two", True, True)
        assert used.load_seconds == 1.5
        assert await text_of(generate(stub)) == "An answer."
        status = await status_of(stub)
        assert (status.state, status.model.name) == (Status.STATE_READY, "two")
    assert life.loads == ["one", "two"]
    assert life.selected == "two"


@switching
async def test_queued_requests_hear_that_the_model_is_loading(life: ManyModels) -> None:
    life.put("one", "two", selected="one")
    async with life.serving() as (stub, admin):
        entered, go_on = life.pause_step()
        running = generate(stub)
        await asyncio.to_thread(entered.wait)
        queued = generate(stub)
        await queued.read()
        switch = use(admin, "two")
        assert await reason_of(queued) == "MODEL_LOADING"
        go_on.set()
        assert await text_of(running) == "An answer."
        await switch


@switching
async def test_requests_that_do_not_end_in_the_drain_time_are_told_so(life: ManyModels) -> None:
    life.put("one", "two", selected="one")
    async with life.serving(limits__drain_seconds=0.01) as (stub, admin):
        entered = threading.Event()

        def pause() -> None:
            entered.set()
            life.opened[0].engine.wait_for_cancel()

        life.opened[0].engine.before_step = pause
        endless = generate(stub)
        await endless.read()
        await asyncio.to_thread(entered.wait)
        await use(admin, "two")
        assert await reason_of(endless) == "MODEL_LOADING"
        assert (await status_of(stub)).model.name == "two"


@switching
async def test_a_model_that_fails_gives_way_to_the_one_before_and_its_caller_hears_why(
    life: ManyModels,
) -> None:
    life.put("one", "two", selected="one")
    life.failing["two"] = CORRUPT
    async with life.serving() as (stub, admin):
        code, message, metadata = await error_of_call(use(admin, "two"))
        assert (code, metadata["llamad-reason"]) == (grpc.StatusCode.DATA_LOSS, "MODEL_CORRUPT")
        assert message == "two.gguf: bad magic"
        status = await status_of(stub)
        assert (status.state, status.model.name) == (Status.STATE_READY, "one")
        assert await text_of(generate(stub)) == "An answer."
    assert life.loads == ["one", "two", "one"]
    assert life.selected == "one"


@switching
async def test_a_model_that_is_seen_to_be_broken_disturbs_nobody(life: ManyModels) -> None:
    life.put("one", "two", selected="one")
    life.broken["two"] = CORRUPT
    async with life.serving() as (stub, admin):
        life.opened[0].locked_bytes = 7
        entered, go_on = life.pause_step()
        running = generate(stub)
        await running.read()
        await asyncio.to_thread(entered.wait)
        code, message, _ = await error_of_call(use(admin, "two"))
        assert (code, message) == (grpc.StatusCode.DATA_LOSS, "two.gguf: bad magic")
        status = await status_of(stub)
        assert (status.state, status.model.name) == (Status.STATE_READY, "one")
        queued = generate(stub)
        go_on.set()
        assert await text_of(running) == await text_of(queued) == "An answer."
    assert life.loads == ["one"]
    assert life.selected == "one"


@switching
async def test_who_asks_while_a_model_is_closed_does_not_reach_it(life: ManyModels) -> None:
    life.put("one", "two", selected="one")
    async with life.serving() as (stub, admin):
        entered, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            entered.set()
            assert go_on.wait(TIMEOUT_SECONDS)

        life.opened[0].on_close = hold
        switch = use(admin, "two")
        try:
            await asyncio.to_thread(entered.wait)
            status = await status_of(stub)
            assert (status.state, status.HasField("model")) == (Status.STATE_LOADING, False)
            await stub.GetMetrics(pb.GetMetricsRequest())
        finally:
            go_on.set()
        await switch


@switching
async def test_when_the_one_before_fails_too_the_service_lives_and_says_so(
    life: ManyModels,
) -> None:
    life.put("one", "two", selected="one")
    life.failing["two"] = CORRUPT
    async with life.serving() as (stub, admin):
        life.failing["one"] = LlamadError(ErrorKind.EXHAUSTED, "OUT_OF_MEMORY", "no memory")
        assert await reason_of(use(admin, "two")) == "MODEL_CORRUPT"
        status = await status_of(stub)
        assert (status.state, status.detail) == (Status.STATE_FAILED, "no memory")
        del life.failing["two"]
        await use(admin, "two")
        assert (await status_of(stub)).state == Status.STATE_READY


@switching
async def test_a_lost_model_is_loaded_again(life: ManyModels) -> None:
    life.put("one")
    async with life.serving() as (stub, admin):
        lost = LlamadError(ErrorKind.CORRUPT, "MODEL_FILE_LOST", "one.gguf lost pages")
        life.opened[0].engine.errors = [lost]
        assert await reason_of(generate(stub)) == "MODEL_FILE_LOST"
        await use(admin, "one")
        assert await text_of(generate(stub)) == "An answer."
    assert life.loads == ["one", "one"]


@switching
async def test_the_loaded_model_is_not_loaded_again_but_remembered(life: ManyModels) -> None:
    life.put("one")
    async with life.serving() as (_, admin):
        assert (await use(admin, "one")).model.loaded
        life.put("two")
        models = (await admin.ListModels(admin_pb2.ListModelsRequest())).models
        assert [(m.name, m.loaded, m.selected) for m in models] == [
            ("one", True, True),
            ("two", False, False),
        ]
    assert life.loads == ["one"]
    assert life.selected == "one"


@switching
async def test_the_choice_survives_a_restart(life: ManyModels) -> None:
    life.put("one", "two", "three", selected="one")
    async with life.serving() as (_, admin):
        await use(admin, "three")
    life.told_to_stop.clear()
    async with life.serving() as (stub, admin):
        assert (await status_of(stub)).model.name == "three"


@switching
async def test_an_unknown_name_changes_nothing(life: ManyModels) -> None:
    life.put("one")
    async with life.serving() as (stub, admin):
        for name in ("none", "one.gguf"):
            assert await reason_of(use(admin, name)) == "MODEL_NOT_FOUND"
        for name in ("", "../one", "/etc/passwd", "x" * 241):
            assert await reason_of(use(admin, name)) == "INVALID_NAME"
        assert (await status_of(stub)).state == Status.STATE_READY
    assert life.loads == ["one"]


@switching
async def test_a_choice_that_cannot_be_written_is_told_and_serves(life: ManyModels) -> None:
    life.put("one", "two", selected="one")

    def fail(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry_module, "replace_small", fail)
        async with life.serving() as (stub, admin):
            code, message, _ = await error_of_call(use(admin, "two"))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "two is loaded, but will not be at the next start" in message
            assert (await status_of(stub)).model.name == "two"
    assert life.selected == "one"


@switching
async def test_a_model_that_the_configuration_names_stays(life: ManyModels) -> None:
    life.put("one", "two")
    async with life.serving(model__path="one") as (stub, admin):
        code, message, metadata = await error_of_call(use(admin, "two"))
        assert (code, metadata["llamad-reason"]) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "MODEL_FIXED",
        )
        assert "model.path = 'one'" in message
        await unload(admin)
        await use(admin, "one")
        assert (await status_of(stub)).model.name == "one"
    assert life.selected == ""


@switching
async def test_a_second_change_meanwhile_is_refused(life: ManyModels) -> None:
    life.put("one", "two", "three", selected="one")
    life.held["two"] = threading.Event()
    async with life.serving() as (_, admin):
        switch = use(admin, "two")
        await life.heard("STATUS=reading two")
        for call in (use(admin, "three"), use(admin, "two"), unload(admin)):
            code, _, metadata = await error_of_call(call)
            assert (code, metadata["llamad-reason"]) == (
                grpc.StatusCode.FAILED_PRECONDITION,
                "BUSY_LOADING",
            )
        life.held["two"].set()
        await switch
    assert life.loads == ["one", "two"]


@switching
async def test_what_is_about_to_be_loaded_is_not_removed_while_requests_end(
    life: ManyModels,
) -> None:
    life.put("one", "two", selected="one")
    async with life.serving() as (stub, admin):
        entered, go_on = life.pause_step()
        answer = generate(stub)
        await asyncio.to_thread(entered.wait)
        switch = use(admin, "two")
        await life.heard("STATUS=running requests end before two is loaded")
        removal = admin.RemoveModel(admin_pb2.RemoveModelRequest(name="two"))
        assert await reason_of(removal) == "MODEL_IN_USE"
        go_on.set()
        assert await text_of(answer) == "An answer."
        await switch
        assert (await status_of(stub)).model.name == "two"


@switching
async def test_a_change_is_refused_while_the_service_starts(life: ManyModels) -> None:
    life.put("one")
    life.held["one"] = threading.Event()
    async with life.running() as task, life.admin() as admin:
        await life.heard("STATUS=reading one")
        assert await reason_of(unload(admin)) == "BUSY_LOADING"
        send(signal.SIGTERM)
        await task


@switching
async def test_a_caller_that_leaves_does_not_stop_the_switch(life: ManyModels) -> None:
    life.put("one", "two", selected="one")
    life.held["two"] = threading.Event()
    async with life.serving() as (stub, admin):
        switch = use(admin, "two")
        await life.heard("STATUS=reading two")
        switch.cancel()
        life.held["two"].set()
        await life.heard("STATUS=serving two")
        assert (await status_of(stub)).model.name == "two"
    assert life.selected == "two"


# ---- stopping --------------------------------------------------------------------------------


@switching
async def test_a_signal_while_the_next_model_loads_ends_the_service(life: ManyModels) -> None:
    life.put("one", "two", selected="one")
    life.held["two"] = threading.Event()
    async with life.running() as task, life.admin() as admin:
        await life.heard("READY=1")
        switch = use(admin, "two")
        await life.heard("STATUS=reading two")
        send(signal.SIGTERM)
        assert await reason_of(switch) == "SHUTTING_DOWN"
        await task
    assert life.loads == ["one", "two"]
    assert life.opened[0].closed
    assert life.selected == "one"


@switching
async def test_a_signal_while_requests_drain_for_a_switch_ends_the_service_after_them(
    life: ManyModels,
) -> None:
    life.put("one", "two", selected="one")
    async with life.running() as task, life.stub() as stub, life.admin() as admin:
        await life.heard("READY=1")
        entered, go_on = life.pause_step()
        running = generate(stub)
        await running.read()
        await asyncio.to_thread(entered.wait)
        switch = use(admin, "two")
        await life.heard("STATUS=running requests end")
        send(signal.SIGTERM)
        await life.heard("STOPPING=1")
        go_on.set()
        assert await text_of(running) == "An answer."
        assert await reason_of(switch) == "SHUTTING_DOWN"
        await task
    assert life.loads == ["one"]


@switching
async def test_a_bug_while_switching_ends_the_service_and_answers_the_caller(
    life: ManyModels,
) -> None:
    life.put("one", "two", selected="one")
    life.failing["two"] = ZeroDivisionError("bug")
    async with life.running() as task, life.admin() as admin:
        await life.heard("READY=1")
        assert await reason_of(use(admin, "two")) == "SHUTTING_DOWN"
        with pytest.raises(ZeroDivisionError):
            await task
