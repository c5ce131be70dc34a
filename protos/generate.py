"""Make the Python code of every .proto file in this folder, or check that the committed code is it.

    python protos/generate.py           # write
    python protos/generate.py --check   # exit 1 and name the files when regeneration differs

Run it with a Python that has grpcio-tools 1.62.3: its output runs with protobuf 3.20 to 7.36 and
grpcio from 1.51, that of later versions does not import on the distributions' packages.
"""

import argparse
import filecmp
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOOLS_VERSION = "1.62.3"
ROOT = Path(__file__).resolve().parent
SERVICES = ("llamad_api/v1/llamad.proto", "llamad_api/v1/admin.proto")
MESSAGES = (
    "llamad_api/v1/generation.proto",
    "llamad_api/v1/status.proto",
    "llamad_api/standard/health.proto",  # its service and the next are registered by name
    "llamad_api/standard/reflection.proto",  # in daemon/llamad/rpc
)


def generate(out: Path) -> list[Path]:
    """Write the generated files below out; return their paths, relative to it."""
    outputs = [f"--python_out={out}", f"--pyi_out={out}"]
    _protoc([*outputs, f"--grpc_python_out={out}"], SERVICES)
    _protoc(outputs, MESSAGES)
    return sorted(p.relative_to(out) for p in out.rglob("*_pb2*.py*"))


def _protoc(outputs: list[str], files: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", *outputs, *files]
    subprocess.run(command, cwd=ROOT, check=True)


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Make the generated gRPC code.")
    parser.add_argument("--check", action="store_true", help="only compare with what is committed")
    arguments = parser.parse_args()
    version = importlib.metadata.version("grpcio-tools")
    if version != TOOLS_VERSION:
        print(f"generate.py: grpcio-tools is {version}, needs {TOOLS_VERSION}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        made = generate(out)
        present = {p.relative_to(ROOT) for p in ROOT.rglob("*_pb2*.py*") if p.suffix != ".pyc"}
        stale = sorted(present - set(made))
        differing = [
            p for p in made if p not in present or not filecmp.cmp(out / p, ROOT / p, shallow=False)
        ]
        if not arguments.check:
            for path in differing:
                shutil.copyfile(out / path, ROOT / path)
            for path in stale:
                (ROOT / path).unlink()
            return 0
    for path in [*differing, *stale]:
        print(f"generate.py: protos/{path} is not what `make proto` makes", file=sys.stderr)
    return 1 if differing or stale else 0


if __name__ == "__main__":
    sys.exit(main())
