"""What ``make memory-check`` asserts of a model that is larger than its memory. Root; counts bytes.

Each check runs the real programs in a control group with little memory, and compares what they say
with what the kernel counted in /proc/PID/io. Nothing here is timed. The models are synthetic and
small; ``tests/bench/memory_figures.py`` measures large ones.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clients.running import environment, llamactl_command
from llamad.door.capacity import capacity_for
from memory.failing_disk import failing_disk
from memory.limited import MIB, limited, make_cold, run
from memory.serving import Served, served
from tiny_gguf import TinySpec, write_tiny_model

SHAPE = TinySpec(
    dim=1024, hidden_dim=2816, n_layers=16, n_heads=16, n_kv_heads=16, n_ctx_train=1024
)
LARGE, SMALL = "large", "small"
ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
DEMO_BUDGET = 120_000_000  # the service takes almost all of it; the model has 98 MB
UNIT = ROOT / "packaging" / "systemd" / "llamad.service"
CONTEXT = "512"
RESIDENT_SHARE = 0.5  # of the large model, about, in the checks where it does not fit
TOLERANCE = 1.02  # of bytes counted by the kernel: whole pages, metadata of the file system
CARD_BYTES_PER_SECOND = 40_000_000
OTHER_READS = 4 * MIB  # of a service that runs: libraries and modules first used later

Check = Callable[["Setting"], str]


class Setting:
    """The models, in a folder on a real disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "models"
        self.models.mkdir()
        self.large = self.models / f"{LARGE}.gguf"
        self.small = self.models / f"{SMALL}.gguf"
        types = {"weight_type": "Q4_0"}
        write_tiny_model(self.large, TinySpec(**{**_fields(SHAPE), **types}))
        write_tiny_model(self.small, TinySpec())
        self.file_bytes = self.large.stat().st_size

    def new_folder(self) -> Path:
        """Return a folder for a service's socket and log."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def bench(self, budget: int, *flags: str, model: Path | None = None) -> dict[str, Any]:
        """Return what ``llamad bench`` measured with a memory budget, from a cold file."""
        model = model or self.large
        make_cold(model)
        command = [sys.executable, "-m", "llamad", "bench", str(model), "--json"]
        command += ["--memory-budget", str(budget), "--huge-pages", "off", *flags]
        return dict(json.loads(run(command)))

    def flags(self, budget: int | None = None, model: Path | None = None) -> list[str]:
        """Return flags for a service of a model, by default the large one."""
        flags = ["--model", str(model or self.large), "--ctx-size", CONTEXT]
        flags += ["--huge-pages", "off"]
        return flags if budget is None else [*flags, "--memory-budget", str(budget)]

    def half_budget(self) -> int:
        """Return a budget in which about half of the model stays in memory.

        Asked of a plan with little memory, since some of what is planned shrinks with it.
        """
        with served(self.new_folder(), self.flags(2 * self.file_bytes)) as service:
            plan = service.status()["memory"]
        fixed = sum(
            plan[name]
            for name in (
                "process_bytes",
                "template_bytes",
                "vocabulary_bytes",
                "samplers_bytes",
                "scratch_bytes",
            )
        )
        context = plan["kv_bytes"] // max(1, plan["kv_blocks"]) * -(-int(CONTEXT) // 32)
        budget = int(fixed + context + RESIDENT_SHARE * self.file_bytes)
        return budget + capacity_for(budget).memory_bytes


def unit_environment() -> dict[str, str]:
    """Return the variables that the unit sets."""
    lines = UNIT.read_text().splitlines()
    values = [line.partition("=")[2] for line in lines if line.startswith("Environment=")]
    return dict(word.split("=", 1) for value in values for word in value.split())


def _fields(spec: TinySpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in TinySpec.__slots__}


# ---- the checks ----------------------------------------------------------------------------------


def resident(setting: Setting) -> str:
    """Where everything fits, a token reads nothing."""
    result = setting.bench(4 * setting.file_bytes + 1024 * MIB, "-p", "32", "-n", "16")
    assert result["streamed_bytes"] == 0, result
    assert result["bytes_read_per_token"] == 0, result
    return f"locked {_mib(result['locked_bytes'])}, 0 read per token"


def streaming(setting: Setting) -> str:
    """Where half fits, a token reads the other half once, and no byte of what stays."""
    result = setting.bench(setting.half_budget(), "-p", "32", "-n", "16")
    streamed, read = result["streamed_bytes"], result["bytes_read_per_token"]
    assert 0.2 * setting.file_bytes < streamed < 0.8 * setting.file_bytes, result
    assert result["locked_bytes"] > 0.2 * setting.file_bytes, result
    assert read <= TOLERANCE * (setting.file_bytes - result["locked_bytes"]), result
    return f"locked {_mib(result['locked_bytes'])}, {_mib(read)} read per token"


def same_answer(setting: Setting) -> str:
    """A model that streams says what it says when it fits; the service tells what it reads."""
    prompt = ("-n", "24", "once upon a time")
    with served(setting.new_folder(), setting.flags()) as service:
        expected = service.ask(*prompt)
    budget = setting.half_budget()
    make_cold(setting.large)
    with (
        limited(budget) as group,
        served(setting.new_folder(), setting.flags(), group) as service,
    ):
        model = service.model()
        assert model["streamed_bytes"] > 0, model
        assert service.ask(*prompt) == expected
        before, steps = service.read_bytes(), 24
        assert service.ask(*prompt) == expected
        read = service.read_bytes() - before
        most = TOLERANCE * (setting.file_bytes - model["locked_bytes"]) * (steps + 1)
        assert read <= most + OTHER_READS, (read, most)
        assert group.kills() == 0
        told = service.model()["bytes_read_per_token"]
        assert 0 < told <= TOLERANCE * setting.file_bytes, told
    return f"{_mib(read / (steps + 1))} read per step in {_mib(budget)}, the same text"


def demo(setting: Setting) -> str:
    """The demo model in less than a service with all of its limits takes: it streams, and answers.

    A chat too, whose template runs in a process of its own. In the environment of the unit.
    """
    result = setting.bench(DEMO_BUDGET, "-p", "32", "-n", "8", model=DEMO)
    assert result["streamed_bytes"] > 0, result
    read = TOLERANCE * (result["model_bytes"] - result["locked_bytes"])
    assert result["bytes_read_per_token"] <= read, result

    chat, raw = ("-n", "24", "Tell me about the sea."), ("--raw", "-n", "24", "once upon a time")
    flags = setting.flags(model=DEMO)
    with served(setting.new_folder(), flags, environment=unit_environment()) as service:
        assert service.model()["streamed_bytes"] == 0
        expected = [service.answer(*chat), service.answer(*raw)]
    make_cold(DEMO)
    with (
        limited(DEMO_BUDGET) as group,
        served(setting.new_folder(), flags, group, unit_environment()) as service,
    ):
        status = service.status()
        model, plan = status["model"], status["memory"]
        assert model["streamed_bytes"] > 0, model
        assert plan["budget_bytes"] <= DEMO_BUDGET, plan
        assert [service.answer(*chat), service.answer(*raw)] == expected
        assert group.kills() == 0
        assert service.swapped_bytes() == 0
        own = service.own_bytes()  # what a model without weights takes beside the shared libraries
        parts = ("process", "connections", "vocabulary", "samplers", "scratch", "kv", "streaming")
        planned = sum(plan[f"{part}_bytes"] for part in parts)
        assert own <= planned, (own, plan)
        peak = group.peak_bytes()
    told = f"{_mib(model['streamed_bytes'])} streamed in {_mib(DEMO_BUDGET)}, the same text"
    return f"{told}; {_mib(own)} of its own, {_mib(planned)} planned; peak {_mib(peak)}"


def prefill(setting: Setting) -> str:
    """Where reading is dear, a long prompt reads what streams at most twice.

    The disk is as slow as a card: of a fast one a small model may be read again for each step of
    ``queue.step_seconds``, which costs less than others' waiting.
    """
    budget = setting.half_budget()
    make_cold(setting.large)
    words = " ".join(["a"] * 200)
    with (
        limited(budget, setting.large, CARD_BYTES_PER_SECOND) as group,
        served(setting.new_folder(), setting.flags(), group) as service,
    ):
        service.ask("-n", "1", "first")
        streamed = service.model()["streamed_bytes"]
        count = len(service.llamactl("--json", "tokenize", words)[1].splitlines())
        before = service.read_bytes()
        service.ask("-n", "1", words)
        read = service.read_bytes() - before
    assert read <= TOLERANCE * 2 * streamed + OTHER_READS, (read, streamed, count)
    return f"{count} tokens read {read / streamed:.2f} times what streams"


def changing_limits(setting: Setting) -> str:
    """Twenty changes of the limit while it answers: nothing is killed, the text is the same."""
    prompt = ("-n", "400", "--seed", "1", "once upon a time")
    with served(setting.new_folder(), setting.flags()) as service:
        expected = service.ask(*prompt)
        whole = int(service.status()["memory"]["kv_bytes"]) + 2 * setting.file_bytes + 400 * MIB
    low, high = setting.half_budget(), whole
    make_cold(setting.large)
    numbers = random.Random(11)
    limits = [numbers.randrange(low, high) for _ in range(20)] + [low, high]
    with (
        limited(high) as group,
        served(setting.new_folder(), setting.flags(), group) as service,
    ):
        first = service.model()["locked_bytes"]
        asking = _ask_beside(service, *prompt)
        seen = [_change(service, group, limit) for limit in limits]
        answers = asking.communicate(timeout=600)
        assert asking.returncode == 0, answers
        assert answers[0] == expected
        assert group.kills() == 0
        assert service.lives
    assert min(seen) < first, "nothing was given back"
    return f"locked {_mib(min(seen))} to {_mib(max(seen))}, nothing killed, the same text"


def _change(service: Served, group: Any, limit: int) -> int:
    """Write a limit until the kernel takes it; return what is locked then."""
    for _ in range(2000):
        if group.try_limit(limit):
            break
        service.status()
    else:
        raise AssertionError(f"the limit of {limit} bytes was never taken\n{service.log}")
    service.status()
    return int(service.model()["locked_bytes"])


def _ask_beside(service: Served, *prompt: str) -> "subprocess.Popen[str]":
    command = service.command("ask", "--raw", "--temperature", "0", *prompt)
    return subprocess.Popen(
        llamactl_command(*command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def cut_file(setting: Setting) -> str:
    """A file that is cut while it streams fails its model with a message; another is used."""
    victim = setting.models / "victim.gguf"
    shutil.copyfile(setting.large, victim)
    budget = setting.half_budget()
    with served(setting.new_folder(), _directory_flags(setting, "victim", budget)) as service:
        service.ask("-n", "2", "x")
        os.truncate(victim, setting.file_bytes // 3)
        message = _fails(service)
    victim.unlink()
    return message


def failing_reads(setting: Setting) -> str:
    """A disk that fails (EIO) fails the model with a message; another is used."""
    budget = setting.half_budget()
    broken = setting.models / "broken.gguf"
    with failing_disk(setting.large, setting.folder / "disk") as disk:
        disk.show_as(broken)
        with served(setting.new_folder(), _directory_flags(setting, "broken", budget)) as service:
            service.ask("-n", "2", "x")
            disk.fail_from = 0
            message = _fails(service)
    broken.unlink()
    assert disk.failures > 0
    return message


def _directory_flags(setting: Setting, name: str, budget: int) -> list[str]:
    """Return flags for a service that may change between the models of the directory."""
    config = setting.folder / "llamad.toml"
    config.write_text(
        f'[model]\ndirectory = "{setting.models}"\nctx_size = {CONTEXT}\n'
        f'huge_pages = "off"\nmemory_budget = {budget}\n'
    )
    (setting.models / ".selected").write_text(f"{name}\n")
    return ["--config", str(config)]


def _fails(service: Served) -> str:
    """Ask until the model is lost; return what the client heard, then use another model."""
    code, _, message = service.llamactl("ask", "--raw", "-n", "64", "once upon a time")
    assert code in (4, 5), (code, message)
    assert service.lives
    status = service.status()
    assert status["state"] == "failed", status
    code, _, error = service.llamactl("use", SMALL)
    assert code == 0, error
    assert service.llamactl("ask", "--raw", "-n", "2", "x")[0] == 0
    assert service.stop() == 0
    return " ".join(message.split())[-100:]


CHECKS: tuple[Check, ...] = (
    resident,
    streaming,
    same_answer,
    demo,
    prefill,
    changing_limits,
    cut_file,
    failing_reads,
)


def _mib(n_bytes: float) -> str:
    return f"{n_bytes / MIB:.0f} MiB"


def main() -> None:
    """Run the checks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checks", nargs="*", metavar="CHECK")
    parser.add_argument("--folder", type=Path, default=Path("build"), help="on a real disk")
    arguments = parser.parse_args()
    names = {check.__name__: check for check in CHECKS}
    arguments.folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder.resolve()) as folder:
        setting = Setting(Path(folder))
        for name in arguments.checks or names:
            print(f"{name:16} {names[name](setting)}", flush=True)


if __name__ == "__main__":
    main()
