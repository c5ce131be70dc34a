"""checklist.chk of a LLaMA download: the MD5 of each file, as md5sum writes them."""

import hashlib
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from llamad_tools.checkpoints.source import SourceFile, corrupt

_LINE = re.compile(r"([0-9a-fA-F]{32}) [ *]?(\S.*)")
_PIECE_BYTES = 4 << 20
_MAX_BYTES = 64 << 10  # LLaMA-65B's has 500


def verify(checklist: Path, progress: Callable[[str, int], None]) -> None:
    """Check every file that is listed; ``progress`` gets a name and bytes as they are read.

    Raises LlamadError CHECKPOINT_CORRUPT for a file that is missing or differs, by its name.
    """
    with closing(SourceFile(checklist)) as file:
        if file.n_bytes > _MAX_BYTES:
            raise corrupt(checklist, f"is larger than {_MAX_BYTES} bytes")
        text = file.read(0, file.n_bytes).decode("ascii", "replace")
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise corrupt(checklist, f"line {line[:80]!r} is no MD5 and a file name")
        digest, name = match[1].lower(), match[2]
        if "/" in name:
            raise corrupt(checklist, f"names a file in another folder: {name}")
        path = checklist.parent / name
        if not path.is_file():
            raise corrupt(checklist, f"{name} is missing")
        if _md5(path, progress) != digest:
            raise corrupt(path, "does not match its MD5 in checklist.chk: download it again")


def _md5(path: Path, progress: Callable[[str, int], None]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            progress(path.name, len(piece))
    return digest.hexdigest()
