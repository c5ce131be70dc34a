"""Model the aarch64 inner loops with llvm-mca: cycles per weight (one column) and per multiply-add.

Owns the extraction of loops from the cross-compiled objects (`make mca`); measures nothing. The A72
is LLVM's cortex-a72 (its A57 model). The A76 is neoverse-n1, which has a model of its own only from
LLVM 19 on; older versions use the A57's, and the column says which CPU was modelled.

A loop is taken from its object code, by its backward branch. A loop inside it is modelled on its
own and counted as often as it runs.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

LINE = re.compile(r"^\s+([0-9a-f]+):\s+(\S+)\s*(.*?)(?:\s*//.*)?$")
TARGET = re.compile(r"\b([0-9a-f]+) <")
BRANCHES = ("b", "cbz", "cbnz", "tbz", "tbnz")
CALL = re.compile(r"^bl?\s.*<(\w+)>$")
SYMBOL = re.compile(r"\s*<[^>]*>")
SPILL = re.compile(r"^(?:str|stp)\s+q\d+.*\[sp")


@dataclass(frozen=True, slots=True)
class Kernel:
    """One inner loop: where it is and how much work one pass of its outer loop does."""

    name: str
    source: str  # object file under src/, without suffix
    function: str
    cpu: str
    macs: int  # multiply-adds of one pass: rows x elements x columns
    inner_passes: int = 1  # passes of a loop inside it
    n_loops: int = 0  # not one loop, but so many one after the other, which do the work together


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of the disassembly; target is where a branch goes."""

    address: int
    text: str
    target: int | None


def _kernels() -> list[Kernel]:
    kernels: list[Kernel] = []
    for name in ("q4_0", "q4_1", "q5_0", "q8_0"):
        for width, columns in (("one", 1), ("four", 4)):
            kernels.append(
                Kernel(
                    f"{name} {width}",
                    "kernels/neon/matmul_blocks",
                    f"{name}_{width}",
                    "cortex-a72",
                    4 * (64 if columns == 1 else 32 * columns),
                )
            )
    for name in ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k"):
        for width, columns in (("one", 1), ("four", 4)):
            kernels.append(
                Kernel(
                    f"{name} {width}",
                    "kernels/neon/matmul_k",
                    f"{name}_{width}",
                    "cortex-a72",
                    4 * 256 * columns,
                    2,
                )
            )
    for name in ("q4_0", "q8_0"):
        kernels.append(
            Kernel(f"{name} one", "kernels/dotprod/matmul", f"{name}_one", "neoverse-n1", 4 * 32)
        )
        kernels.append(
            Kernel(
                f"{name} panel",
                "kernels/dotprod/matmul_panel",
                f"dot_{name}",
                "neoverse-n1",
                8 * 32 * 4,
            )
        )
    for name, sub_blocks in (("q3_k", 16), ("q4_k", 8), ("q5_k", 8), ("q6_k", 16)):
        kernels.append(
            Kernel(
                f"{name} one", "kernels/dotprod/matmul", f"{name}_one", "neoverse-n1", 4 * 256, 2
            )
        )
        kernels.append(
            Kernel(
                f"{name} panel",
                "kernels/dotprod/matmul_panel",
                f"dot_{name}",
                "neoverse-n1",
                8 * 256 * 4,
                sub_blocks,
            )
        )
    for name in ("mxfp4", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s"):
        kernels += _both_machines(name)
    for name, block in (("q1_0", 128), ("q2_0", 64)):
        for folder, cpu in (("neon", "cortex-a72"), ("dotprod", "neoverse-n1")):
            for width, columns in (("one", 1), ("four", 4)):
                kernels.append(
                    Kernel(
                        f"{name} {width}",
                        f"kernels/{folder}/matmul_bits",
                        f"{name}_{width}",
                        cpu,
                        4 * block * columns,
                    )
                )
    # of states: a pass over the rows of 32 columns, or two
    for cpu in ("cortex-a72", "neoverse-n1"):
        for name, n_loops in (("scan_step", 1), ("delta_step", 2)):
            kernels.append(Kernel(name, "kernels/neon/state", name, cpu, 32, n_loops=n_loops))
    return kernels


def _both_machines(name: str) -> list[Kernel]:
    """Return the loops of a format of blocks of 32 (mxfp4) or 256, on the A72 and the A76."""
    is_small = name == "mxfp4"
    source = "kernels/neon/matmul_blocks" if is_small else "kernels/neon/matmul_k"
    one = 4 * (64 if is_small else 256)
    passes = 1 if is_small else 2
    size = 32 if is_small else 256
    inner = 1 if is_small else 16 if name in ("iq2_xs", "iq2_s") else 8
    panel = "kernels/dotprod/matmul_panel"
    return [
        Kernel(f"{name} one", source, f"{name}_one", "cortex-a72", one, passes),
        Kernel(f"{name} four", source, f"{name}_four", "cortex-a72", 16 * size, passes),
        Kernel(
            f"{name} one", "kernels/dotprod/matmul", f"{name}_one", "neoverse-n1", 4 * size, passes
        ),
        Kernel(f"{name} panel", panel, f"dot_{name}", "neoverse-n1", 32 * size, inner),
    ]


def disassemble(objdump: str, path: Path, function: str) -> list[Instruction]:
    """Return the instructions of one function of an object file, or of the equal it became.

    Raises:
        LookupError: the object has no such function.
    """
    text = subprocess.run(
        [objdump, "-d", "--no-show-raw-insn", f"--disassemble={function}", str(path)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found: list[Instruction] = []
    for line in text.splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        address, mnemonic, operands = int(match[1], 16), match[2], match[3]
        target = TARGET.search(operands)
        is_branch = mnemonic.split(".")[0] in BRANCHES
        found.append(
            Instruction(
                address,
                f"{mnemonic} {operands}",
                int(target[1], 16) if target and is_branch else None,
            )
        )
    if not found:
        raise LookupError(f"{path}: no function {function}")
    calls = [match[1] for i in found if (match := CALL.match(i.text))]
    is_folded = len(found) < 8 and len(calls) == 1
    return disassemble(objdump, path, calls[0]) if is_folded else found


def loops(code: list[Instruction], nested: bool) -> tuple[list[Instruction], list[Instruction]]:
    """Return the instructions of the outer loop alone, and those of the loop inside it, if nested.

    The loop that counts is the narrowest with most of the function's multiplications; a nested
    kernel's outer loop is the narrowest around that one.

    Raises:
        LookupError: the function has no such loops.
    """
    spans = sorted(
        {(i.target, i.address) for i in code if i.target is not None and i.target < i.address},
        key=lambda span: span[1] - span[0],
    )
    products = [i.address for i in code if i.text.startswith(("sdot", "smull", "saddlp"))]
    for start, end in spans:
        if sum(start <= address <= end for address in products) >= 0.7 * len(products):
            break
    else:
        raise LookupError("no loop with the multiplications")
    core = [i for i in code if start <= i.address <= end]
    if not nested:
        return core, []
    for first, last in spans:
        if first < start and last > end:
            around = [i for i in code if first <= i.address <= last]
            return [i for i in around if not start <= i.address <= end], core
    raise LookupError("no loop around the inner one")


def innermost(code: list[Instruction], n: int) -> list[list[Instruction]]:
    """Return the n loops with no loop inside that have the most multiply-adds."""
    spans = {(i.target, i.address) for i in code if i.target is not None and i.target < i.address}
    inner = [a for a in spans if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
    bodies = [[i for i in code if start <= i.address <= end] for start, end in sorted(inner)]
    bodies.sort(key=lambda body: -sum(i.text.startswith("fmla") for i in body))
    return bodies[:n]


def cycles(mca: str, cpu: str, body: list[Instruction]) -> float:
    """Return the modelled cycles of one pass over straight-line code."""
    # objdump's "<symbol>" behind an address is no assembly, which LLVM 14 forgave
    lines = [SYMBOL.sub("", i.text) for i in body if i.target is None]
    if not lines:
        return 0.0
    report = subprocess.run(
        [mca, "-mtriple=aarch64", f"-mcpu={cpu}", "-mattr=+dotprod,+fullfp16", "-iterations=200"],
        check=True,
        capture_output=True,
        text=True,
        input="\n".join(lines) + "\n",
    ).stdout
    match = re.search(r"Total Cycles:\s+(\d+)", report)
    assert match is not None, report
    return int(match[1]) / 200


def main() -> None:
    """Print the table of all kernels."""
    parser = argparse.ArgumentParser(description="modelled cycles of the aarch64 inner loops")
    parser.add_argument("objects", type=Path, help="directory of the cross-compiled src/*.o")
    parser.add_argument("--objdump", default="aarch64-linux-gnu-objdump")
    parser.add_argument("--mca", default="llvm-mca")
    options = parser.parse_args()
    print("| kernel | model | cycles/MAC | instructions | vector stores to the stack |")
    print("|---|---|---|---|---|")
    for kernel in _kernels():
        path = options.objects / f"{kernel.source}.o"
        code = disassemble(options.objdump, path, kernel.function)
        inner: list[Instruction] = []
        if kernel.n_loops:
            bodies = innermost(code, kernel.n_loops)
            outer = [i for body in bodies for i in body]
            total = sum(cycles(options.mca, kernel.cpu, body) for body in bodies)
        else:
            outer, inner = loops(code, kernel.inner_passes > 1)
            total = cycles(options.mca, kernel.cpu, outer)
            total += kernel.inner_passes * cycles(options.mca, kernel.cpu, inner)
        spills = sum(1 for i in (inner or outer) if SPILL.match(i.text))
        count = len(outer) + kernel.inner_passes * len(inner)
        print(f"| {kernel.name} | {kernel.cpu} | {total / kernel.macs:.3f} | {count} | {spills} |")


if __name__ == "__main__":
    main()
