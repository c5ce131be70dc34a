"""What a real service does with the memory of its model."""

import errno
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from clients.daemon_process import daemon
from llamad.__main__ import main
from llamad.config import ModelConfig
from llamad.engine.bindings import StopFlag
from llamad.memory.machine import Machine
from llamad.service.loading import load
from llamad.sizes import compact_size
from llamad_client import Client
from llamad_tools.advice.recommendation import SYSTEM_BYTES
from tiny_gguf import TinyModelPath, TinySpec
from unit.schedule.fakes import TIMEOUT_SECONDS

MANY_PIECES = TinySpec(vocab_size=6000, dim=512)  # 24 MiB: read by 8 MiB, locked by 1 MiB at most

# What is planned to be in memory, without the _bytes of its field.
PLANNED = (
    "process",
    "connections",
    "template",
    "vocabulary",
    "samplers",
    "scratch",
    "kv",
    "resident",
    "streaming",
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def plan_of_fit(model: Path, budget: int, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return what ``llamad fit`` says of the file as it is, for a machine of this budget."""
    assert main(["fit", str(model), "--memory", str(budget + SYSTEM_BYTES), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan_as_it_is"]
    assert isinstance(plan, dict)
    return plan


@pytest.mark.parametrize("fits", [True, False])
def test_fit_loader_and_status_say_the_same_bytes(
    folder: Path, tiny_model_path: TinyModelPath, capsys: pytest.CaptureFixture[str], fits: bool
) -> None:
    model = tiny_model_path(MANY_PIECES)
    plan = plan_of_fit(model, 180 << 20, capsys)  # in which the door has its least limits
    budget = sum(plan[f"{what}_bytes"] for what in PLANNED) + plan["on_demand_bytes"]
    if not fits:  # one context of KV cache instead of four, and a third of the file
        budget -= plan["kv_bytes"] // 4 * 3 + plan["resident_bytes"] * 2 // 3
        plan = plan_of_fit(model, budget, capsys)
    assert (plan["streamed_bytes"] == 0) is fits

    loaded = load(ModelConfig(path=str(model), memory_budget=budget), StopFlag())
    assert asdict(loaded.plan) == plan | {"budget_bytes": budget}
    assert loaded.engine_info.kv_bytes == plan["kv_bytes"]
    assert loaded.engine_info.scratch_bytes == plan["scratch_bytes"]
    loaded.close()

    with daemon(folder, "--model", str(model), "--memory-budget", str(budget)) as service:
        service.wait_until_ready()
        with Client(service.socket) as client:
            status = client.status()
        assert status.memory is not None
        assert status.model is not None
        told = asdict(status.memory) | {"n_ctx": status.model.n_ctx, "expert_share": 0.0}
        assert told.pop("token_read_bytes") == plan["streamed_bytes"]
        assert told == plan | {"budget_bytes": budget}
        assert service.stop() == 0


# ---- a stop, and limits, while the weights are made resident ------------------------------------


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the library that pauses or fails a service's memory calls."""
    library = tmp_path_factory.mktemp("preload") / "paused_memory.so"
    source = Path(__file__).with_name("paused_memory.c")
    subprocess.run(["cc", "-Wall", "-shared", "-fPIC", "-o", library, source], check=True)
    return str(library)


@pytest.mark.parametrize("paused", ["populate", "mlock"])
def test_sigterm_while_the_weights_are_read_or_locked_ends_the_load_after_the_piece(
    folder: Path, tiny_model_path: TinyModelPath, preload: str, paused: str
) -> None:
    fifos = {"MEMORY_BEGUN": folder / "begun", "MEMORY_GO_ON": folder / "go-on"}
    for path in fifos.values():
        os.mkfifo(path)
    begun, go_on = (os.open(path, os.O_RDWR | os.O_NONBLOCK) for path in fifos.values())
    environment = {name: str(path) for name, path in fifos.items()} | {
        "LD_PRELOAD": preload,
        "MEMORY_CALLS": str(folder / "calls"),
        "MEMORY_PAUSED": paused,
        "NOTIFY_SOCKET": str(folder / "notify"),
    }
    flags = ("--model", str(tiny_model_path(MANY_PIECES)), "--huge-pages", "off")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(environment["NOTIFY_SOCKET"])
        manager.settimeout(TIMEOUT_SECONDS)
        with daemon(folder, *flags, **environment) as service:
            assert select.select([begun], [], [], TIMEOUT_SECONDS)[0], service.log.read_text()
            service.process.send_signal(signal.SIGTERM)
            while not manager.recv(4096).startswith(b"STOPPING=1"):
                pass
            os.write(go_on, b"\n")
            assert service.process.wait(TIMEOUT_SECONDS) == 0, service.log.read_text()
            assert not service.socket.exists()
    os.close(begun)
    os.close(go_on)
    made = (folder / "calls").read_text().split()
    assert made.count(paused) == 2
    assert made[-1] == paused  # nothing after the piece


def log_of_a_served_model(
    folder: Path, model: Path, *prefix: str, **changes: str
) -> tuple[int, str]:
    """Return how many bytes of a model the service has locked, and the journal's line on it."""
    with daemon(folder, "--model", str(model), prefix=prefix, **changes) as service:
        service.wait_until_ready()
        with Client(service.socket) as client:
            status = client.status()
        assert status.model is not None
        assert service.stop() == 0
        lines = service.log.read_text().splitlines()
    [line] = [line for line in lines if "model locked in part" in line]
    return status.model.locked_bytes, line


def test_the_journal_names_rlimit_memlock_where_it_bounds_the_lock(
    folder: Path, tiny_model_path: TinyModelPath
) -> None:
    limit = 1 << 16
    unprivileged = ["setpriv", "--bounding-set=-ipc_lock"] if os.geteuid() == 0 else []
    model = tiny_model_path(MANY_PIECES)
    locked, line = log_of_a_served_model(
        folder, model, "prlimit", f"--memlock={limit}", *unprivileged
    )
    assert locked <= limit
    assert f"RLIMIT_MEMLOCK is {limit} bytes" in line
    assert f"locked={compact_size(locked)}" in line


def test_a_limit_that_does_not_count_for_the_service_is_not_named(
    folder: Path, tiny_model_path: TinyModelPath, preload: str
) -> None:
    changes = {"LD_PRELOAD": preload, "MEMORY_ERRNO": str(errno.ENOMEM)}
    limited = ("prlimit", f"--memlock={1 << 16}")
    _, line = log_of_a_served_model(folder, tiny_model_path(MANY_PIECES), *limited, **changes)
    assert ("RLIMIT_MEMLOCK" in line) is (Machine().lock_limit_bytes() is not None)


def test_the_journal_names_the_machine_where_it_has_no_memory_to_lock(
    folder: Path, tiny_model_path: TinyModelPath, preload: str
) -> None:
    changes = {"LD_PRELOAD": preload, "MEMORY_ERRNO": str(errno.EAGAIN)}
    locked, line = log_of_a_served_model(folder, tiny_model_path(MANY_PIECES), **changes)
    assert locked > 0
    assert f"locked {locked} bytes: the machine or the control group has no memory for" in line
    assert "RLIMIT_MEMLOCK" not in line
