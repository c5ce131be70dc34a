"""GetMetrics over a real server, read as a monitoring program reads it."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from clients.running import environment
from llamad.board import Files
from llamad.schedule.draft import DraftCounts
from llamad_api.v1 import llamad_pb2 as pb
from project_files import ROOT
from rpc.serving import PLAN, Service, error_of_call, serving
from unit.schedule.fakes import asynchronous, saying

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parse(text: str) -> Samples:
    """Return the samples of a text by name and labels; every family has help and a known type."""
    samples: Samples = {}
    for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call, unused-ignore]
        assert family.documentation, family.name
        assert family.type in ("gauge", "counter", "histogram"), family.name
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples, f"{key} twice"
            samples[key] = sample.value
    return samples


async def read(service: Service) -> Samples:
    async with service.stub() as stub:
        return parse((await stub.GetMetrics(pb.GetMetricsRequest())).text)


@asynchronous
async def test_requests_errors_tokens_and_times_are_told() -> None:
    async with serving() as service, service.stub() as stub:
        service.bench.engine.rule = saying("four")
        batch = pb.GenerateRequest(prompt="prompt")
        batch.options.priority = pb.PRIORITY_BATCH
        async for _ in stub.Generate(batch):
            pass
        await error_of_call(stub.Generate(pb.GenerateRequest(prompt="")))
        await error_of_call(stub.GetJob(pb.GetJobRequest(id="nobody")))
        samples = await read(service)
    ends = {key: n for key, n in samples.items() if key[0] == "llamad_requests_total" and n}
    assert ends == {("llamad_requests_total", (("class", "batch"), ("end", "stop"))): 1}
    assert samples["llamad_call_errors_total", (("reason", "JOB_NOT_FOUND"),)] == 1
    assert samples["llamad_call_errors_total", (("reason", "INVALID_PROMPT"),)] == 1
    assert samples["llamad_prompt_tokens_total", ()] == len("prompt")
    assert samples["llamad_generated_tokens_total", ()] == len("four") + 1
    assert samples["llamad_time_to_first_token_seconds_count", (("class", "batch"),)] == 1
    assert samples["llamad_queue_wait_seconds_count", (("class", "normal"),)] == 0
    assert samples["llamad_time_per_output_token_seconds_count", ()] == 1
    assert samples["llamad_step_seconds_count", ()] == len(service.bench.engine.steps)
    assert samples["llamad_step_rows_sum", ()] == sum(map(sum, service.bench.engine.steps))
    assert samples["llamad_state", (("state", "ready"),)] == 1
    assert samples["llamad_state", (("state", "loading"),)] == 0


@asynchronous
async def test_the_parts_of_the_memory_plan_are_what_is_planned() -> None:
    async with serving() as service:
        samples = await read(service)
    parts = {key[1]: n for key, n in samples.items() if key[0] == "llamad_memory_plan_bytes"}
    assert sum(parts.values()) == PLAN.planned_bytes
    assert parts[(("part", "resident"),)] == PLAN.resident_bytes
    blocks = [n for key, n in samples.items() if key[0] == "llamad_kv_blocks"]
    assert sum(blocks) == service.bench.model.kv_blocks_total


@asynchronous
async def test_what_a_draft_did_is_told_where_there_is_one() -> None:
    counts = DraftCounts("small", guessed=20, accepted=7, paused=True, fault="")
    async with serving() as service:
        assert not any(name.startswith("llamad_draft") for name, _ in await read(service))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("llamad.schedule.draft.Drafts.counts", lambda drafts: counts)
            samples = await read(service)
    assert samples["llamad_draft_guessed_tokens_total", ()] == 20
    assert samples["llamad_draft_accepted_tokens_total", ()] == 7
    assert samples["llamad_draft_paused", ()] == 1


@asynchronous
async def test_without_a_model_the_service_is_told_and_nothing_of_a_model() -> None:
    async with serving(loaded=False) as service:
        samples = await read(service)
    names = {name for name, _ in samples}
    assert "llamad_uptime_seconds" in names
    assert not {name for name in names if name.startswith(("llamad_model", "llamad_kv"))}


@asynchronous
async def test_a_job_that_runs_is_counted_in_its_class() -> None:
    async with serving() as service, service.stub() as stub:
        entered = service.bench.pause_step(0)
        call = stub.Generate(pb.GenerateRequest(prompt="p"))
        await entered.wait()
        samples = await read(service)
        call.cancel()
    assert samples["llamad_jobs_running", (("class", "normal"),)] == 1
    assert samples["llamad_jobs_running", (("class", "batch"),)] == 0


def test_the_board_is_told_as_far_as_it_tells(tmp_path: Path) -> None:
    zone = tmp_path / "class" / "thermal" / "thermal_zone0" / "temp"
    bits = tmp_path / "devices" / "platform" / "soc" / "soc:firmware" / "get_throttled"
    for path, content in ((zone, "61835\n"), (bits, "50004\n")):
        path.parent.mkdir(parents=True)
        path.write_text(content)

    @asynchronous
    async def check() -> None:
        async with serving(files=Files(sys=tmp_path)) as service:
            samples = await read(service)
            async with service.stub() as stub:
                board = (await stub.GetStatus(pb.GetStatusRequest())).board
        assert samples["llamad_board_temperature_celsius", ()] == 61.835
        assert samples["llamad_board_throttled", ()] == 1
        assert samples["llamad_board_under_voltage", ()] == 0
        assert samples["llamad_board_under_voltage_since_boot", ()] == 1
        assert math.isclose(board.temperature_celsius, 61.835)
        assert (board.throttled, board.under_voltage, board.under_voltage_before) == (
            True,
            False,
            True,
        )
        async with serving(files=Files(sys=tmp_path / "absent")) as service:
            samples = await read(service)
            async with service.stub() as stub:
                board = (await stub.GetStatus(pb.GetStatusRequest())).board
        assert not {name for name, _ in samples if name.startswith("llamad_board")}
        assert not board.HasField("throttled")

    check()


@asynchronous
async def test_no_label_names_a_user() -> None:
    async with serving() as service, service.stub() as stub:
        async for _ in stub.Generate(pb.GenerateRequest(prompt="p")):
            pass
        samples = await read(service)
    labels = {label for _, pairs in samples for label, _ in pairs} - {"le"}
    ours = {"class", "end", "state", "part", "version", "engine"}
    assert labels == ours | {"model", "architecture", "kernel_set", "kv_type"}


def test_every_metric_stands_in_the_page_and_no_other() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\| `(llamad_\w+)`", page, re.MULTILINE))

    @asynchronous
    async def check() -> None:
        async with serving(files=Files(sys=ROOT / "tests")) as service:
            service.bench.measures.on_call_failed("REASON")
            assert service.state.serving is not None
            disk = {"bytes_on_disk": 7, "bytes_written": 8, "bytes_read": 9}
            service.state.serving.prefixes.disk_bytes = lambda: disk  # type: ignore[method-assign]
            async with service.stub() as stub:
                text = (await stub.GetMetrics(pb.GetMetricsRequest())).text
        told = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
        assert "\nllamad_prefix_disk_bytes 7.0\n" in text
        assert "\nllamad_prefix_written_bytes_total 8.0\n" in text
        board = {name for name in described if name.startswith("llamad_board_")}
        assert len(board) == 5
        assert described - board - {"llamad_memory_budget_bytes"} == told

    check()


def test_the_service_starts_without_the_librarys_http_server() -> None:
    code = "import sys, llamad.daemon; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert "llamad.daemon" in done.stdout.split()
    assert not {"prometheus_client", "http.server"} & set(done.stdout.split())
