"""A digest that tells one model file from another without reading all of it.

Prefixes and jobs on the disk belong to a model. Reading 4 GB from a card would take minutes, so the
digest is of the length, the head, and samples spread evenly over the weights: quantizing or
training again changes nearly every one of them. It is no proof against somebody who builds a second
file with the same samples; who may write models may write answers.
"""

import hashlib
import os
from pathlib import Path

HEAD_BYTES = 1 << 20
SAMPLES = 256
SAMPLE_BYTES = 4096


def model_digest(path: Path) -> str:
    """Return 32 hexadecimal digits for a file; 2 MiB are read. Blocking. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        n_bytes = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(b"llamad model 1 %d\n" % n_bytes)
        digest.update(_read(file.fileno(), HEAD_BYTES, 0))
        last = max(0, n_bytes - SAMPLE_BYTES)
        for i in range(SAMPLES):
            digest.update(_read(file.fileno(), SAMPLE_BYTES, last * (i + 1) // SAMPLES))
    return digest.hexdigest()[:32]


def _read(fd: int, n_bytes: int, offset: int) -> bytes:
    """Return the bytes at an offset, fewer at the end of the file."""
    parts = []
    while n_bytes and (part := os.pread(fd, n_bytes, offset)):
        parts.append(part)
        n_bytes -= len(part)
        offset += len(part)
    return b"".join(parts)
