"""Messages of llamad.v1.Admin to domain values and back; every check of a field.

The ranges are those of the comments in admin.proto. A field outside its range raises the INVALID
error that names it.
"""

import re
from collections.abc import Container
from pathlib import Path
from typing import TypedDict, Unpack

from llamad.errors import invalid
from llamad.ranges import Integer
from llamad.sampling.parameters import PARAMETERS
from llamad.store.adapter_files import adapter_head
from llamad.store.registry import ModelFile, check_new_name, comparable_path
from llamad.store.transfer import StoredModel, TransferRequest
from llamad_api.v1 import admin_pb2 as pb

MAX_CHUNK_BYTES = 4 << 20
MAX_SOURCE_BYTES = 4096

_SHA256 = re.compile(r"[0-9a-f]{64}|", re.ASCII)


def transfer_request(message: pb.AddModelRequest) -> TransferRequest:
    """Return what the first message of AddModel says."""
    if message.WhichOneof("step") != "start":
        raise invalid("start", "must be the first message")
    start = message.start
    file_bytes = start.file_bytes if start.HasField("file_bytes") else None
    if file_bytes == 0:
        raise invalid("file_bytes", "is 0, must be at least 1")
    sha256 = start.sha256.lower()
    if not _SHA256.fullmatch(sha256):
        raise invalid("sha256", f"has {len(sha256)} characters, must be 64 hexadecimal digits")
    if len(start.source.encode()) > MAX_SOURCE_BYTES:
        raise invalid(
            "source", f"has {len(start.source.encode())} bytes, at most {MAX_SOURCE_BYTES}"
        )
    return TransferRequest(
        name=check_new_name(start.name),
        file_bytes=file_bytes,
        sha256=sha256,
        source=start.source,
        replace=start.replace,
    )


def recommended_sampling(message: pb.AddModelRequest) -> dict[str, float]:
    """Return the sampling that the first message of AddModel recommends."""
    values: dict[str, float] = {}
    for name, value in sorted(message.start.recommended_sampling.items()):
        field = f"recommended_sampling.{name}"
        if name not in PARAMETERS:
            raise invalid(field, f"is none of {', '.join(PARAMETERS)}")
        is_whole = isinstance(PARAMETERS[name].range, Integer) and value.is_integer()
        try:
            values[name] = PARAMETERS[name].check(int(value) if is_whole else value)
        except ValueError as error:
            raise invalid(field, str(error)) from None
    return values


def chunk(message: pb.AddModelRequest) -> tuple[int, bytes]:
    """Return offset and bytes of a later message of AddModel."""
    if message.WhichOneof("step") != "chunk":
        raise invalid("chunk", "must be every message after the first")
    size = len(message.chunk.data)
    if not 1 <= size <= MAX_CHUNK_BYTES:
        raise invalid("data", f"has {size} bytes, must have 1 to {MAX_CHUNK_BYTES}")
    return message.chunk.offset, message.chunk.data


class Marks(TypedDict):
    """The places of the loaded and the selected model, and the adapters beside the loaded one."""

    loaded: Path | None
    selected: Path | None
    adapters: Container[str]


def done(stored: StoredModel, **marks: Unpack[Marks]) -> pb.AddModelResponse:
    """Return the last message of AddModel."""
    return pb.AddModelResponse(
        done=pb.AddModelResponse.Done(
            model=model(stored.file, **marks),
            sha256=stored.sha256,
            unchanged=stored.unchanged,
        )
    )


def model(file: ModelFile, **marks: Unpack[Marks]) -> pb.Model:
    """Return a model as its message. Blocking: it looks whether the file is an adapter."""
    head = adapter_head(file.path)
    place = comparable_path(file.path)
    return pb.Model(
        name=file.name,
        path=str(file.path),
        file_bytes=file.file_bytes,
        loaded=place == marks["loaded"] if head is None else file.name in marks["adapters"],
        selected=place == marks["selected"],
        is_adapter=head is not None,
        base="" if head is None else head.base or head.architecture,
    )
