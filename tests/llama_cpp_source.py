"""llama.cpp's vocabularies, their texts and ids, and its chat templates: the folder ``models``.

    python tests/llama_cpp_source.py

fetches it (77 MB) out of the source distribution of the PyPI package ``llama-cpp-python``, which
carries llama.cpp's sources, into ``build/llama-cpp``. Optional, as the peer itself: ``make peer``
calls it, and the tests that need the folder skip without it. Needs pip; installs nothing.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

SOURCE = "llama-cpp-python==0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
MEMBERS = "/vendor/llama.cpp/models/"
FOLDER = Path(__file__).resolve().parents[1] / "build" / "llama-cpp"
MISSING = f"no {FOLDER}: make peer fetches it"


def fetch(out: Path) -> None:
    """Download, check, unpack, and move into place. Raises SystemExit that says what went wrong."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        folder = Path(name)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", name]
        pip += ["--no-binary", "llama-cpp-python", SOURCE]
        if subprocess.run(pip, stdin=subprocess.DEVNULL).returncode != 0:
            raise SystemExit(f"llama_cpp_source: pip could not download {SOURCE}")
        path = next(folder.glob("*.tar.gz"))
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != SHA256:
            raise SystemExit(f"llama_cpp_source: {SOURCE} has sha256 {found}, expected {SHA256}")
        with tarfile.open(path) as archive:
            members = [member for member in archive.getmembers() if MEMBERS in member.name]
            archive.extractall(folder, members, filter="data")
        shutil.move(next(folder.glob(f"*{MEMBERS}")), out)


def main() -> None:
    """Fetch the folder unless it is there."""
    if not FOLDER.exists():
        print(f"fetching llama.cpp's vocabularies and templates, 77 MB, into {FOLDER}", flush=True)
        fetch(FOLDER)


if __name__ == "__main__":
    main()
