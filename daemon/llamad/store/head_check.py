"""Whether the engine can run a model of which only the beginning has come.

The engine itself says it, in its own words: it opens the head with a hole in place of the weights,
in memory that is never touched. The architecture is asked for as soon as its name is there, among
the first kilobytes; all else (tensors, types, hyperparameters) when the head is whole. A head that
is broken is not refused here: the whole file is verified at its end.
"""

import os
from pathlib import Path

from llamad.engine.bindings import EngineModel
from llamad.errors import LlamadError
from llamad.gguf.head import ArrivingHead
from llamad.gguf.layout import GgufLayout
from llamad.gguf.value import ValueType
from llamad.store.adapter_files import check_adapter, is_adapter

UNKNOWN_BYTES = 1 << 42  # of addresses, for a file whose size its source does not say


class HeadCheck:
    """Takes the bytes of a file in order, and raises as soon as the engine cannot run it."""

    def __init__(self, name: str, file_bytes: int | None) -> None:
        """name: for messages; file_bytes None: not known."""
        self._name, self._file_bytes = name, file_bytes
        self._head: ArrivingHead | None = ArrivingHead()
        self._known_architecture = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises MODEL_UNSUPPORTED."""
        head = self._head
        if head is None:
            return
        head.feed(data)
        if head.ended:
            self._head = None
        if head.n_bytes is not None:
            size = UNKNOWN_BYTES if self._file_bytes is None else self._file_bytes
            self._open(bytes(head.data[: head.n_bytes]), size)
        elif head.architecture is not None and not self._known_architecture:
            self._known_architecture = True
            self._check_architecture(head.architecture)

    def _check_architecture(self, architecture: str) -> None:
        layout = GgufLayout()
        layout.add("general.architecture", architecture, ValueType.STRING)
        self._open(layout.header(), 0)

    def _open(self, head: bytes, file_bytes: int) -> None:
        """Let the engine open a head with a hole behind it. Raises MODEL_UNSUPPORTED."""
        fd = os.memfd_create("llamad-head")
        path = f"/proc/self/fd/{fd}"
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(head)
            os.ftruncate(fd, max(len(head), file_bytes))
            if is_adapter(Path(path)):
                check_adapter(Path(path))
            else:
                EngineModel(path).close()
        except LlamadError as error:
            if error.reason != "MODEL_UNSUPPORTED":
                return
            message = error.message.replace(path, self._name)
            raise LlamadError(error.kind, error.reason, message) from None
        except OSError:  # no room to ask now: the whole file is verified at its end
            return
        finally:
            os.close(fd)
