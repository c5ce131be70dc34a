"""Greedy generations of tiny models: emulated Cortex-A72 and A76 against generic C on this machine.

    python tests/qemu/compare_generation.py        # after: make -C native tests cross-aarch64

Every block format and both KV types. The ids and the checksums of the logits must be the same, bit
for bit (kernels.h); the A72 must run the armv8.0 kernels (a dotprod instruction there dies with
SIGILL), the A76 those with dotprod.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from family_models import FAMILY_MODELS  # noqa: E402
from tiny_gguf import FORMATS, TinySpec, write_tiny_model  # noqa: E402

BUILD = ROOT / "native" / "build"
NATIVE, AARCH64 = (BUILD / variant / "tests" / "generate" for variant in ("native", "aarch64"))
N_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Machine:
    """A way to run the generation, and the kernel set it must choose."""

    name: str
    command: tuple[str, ...]
    cpu: tuple[str, ...]
    kernel_set: str


REFERENCE = Machine("this machine, generic", (str(NATIVE),), ("generic",), "generic")
EMULATED = (
    Machine("cortex-a72", ("qemu-aarch64", "-cpu", "cortex-a72", str(AARCH64)), (), "neon"),
    Machine("cortex-a76", ("qemu-aarch64", "-cpu", "cortex-a76", str(AARCH64)), (), "dotprod"),
)


def generation(machine: Machine, model: Path, kv_type: str) -> list[str]:
    """Return the printed lines after the kernel set, which is checked. SystemExit on failure."""
    command = [*machine.command, str(model), str(N_TOKENS), kv_type, *machine.cpu]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{machine.name}: exit code {done.returncode}: {done.stderr.strip()}")
    first, *lines = done.stdout.splitlines()
    if first != f"kernel set {machine.kernel_set}":
        raise SystemExit(f"{machine.name}: {first}, expected {machine.kernel_set}")
    return lines


def models() -> dict[str, TinySpec]:
    """Return a dense model of each format, one with experts, one with states that guesses."""
    result = {}
    for weight_type, form in FORMATS.items():
        wide = form.block > 32
        result[weight_type] = TinySpec(
            weight_type=weight_type,
            dim=256 if wide else 96,
            hidden_dim=512 if wide else 160,
            architecture="qwen3" if wide else "llama",
        )
    return result | {
        "experts": replace(FAMILY_MODELS["qwen3moe"], weight_type="Q4_0"),
        "guesses": replace(FAMILY_MODELS["qwen35"], weight_type="Q4_0", n_guess_layers=1),
    }


def main() -> None:
    """Compare all models; exit with a line that names the first difference."""
    with tempfile.TemporaryDirectory() as folder:
        for name, spec in models().items():
            model = write_tiny_model(Path(folder) / f"{name}.gguf", spec)
            for kv_type in ("f16", "q8_0", "q4_0"):
                expected = generation(REFERENCE, model, kv_type)
                for machine in EMULATED:
                    if generation(machine, model, kv_type) != expected:
                        raise SystemExit(
                            f"{machine.name}: {name}, KV {kv_type}: another generation "
                            f"than {REFERENCE.name}"
                        )
    n = len(models()) * 2
    for machine in EMULATED:
        print(f"{machine.name}: {n} generations with {machine.kernel_set} equal {REFERENCE.name}")


if __name__ == "__main__":
    main()
