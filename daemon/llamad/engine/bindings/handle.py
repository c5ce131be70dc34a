"""A C object as a Python one: who owns it, who uses it, and when it is freed."""

from types import TracebackType
from typing import Any, Self


class Handle:
    """A C object with an owner: closed once, and usable in a with statement.

    A closed handle is refused with ValueError. What a C object points into, as an engine does into
    its model, is closed at once and freed when the last one that uses it is.
    """

    _pointer: Any = None
    _closed = True
    _n_users = 0

    def _open(self, pointer: Any, destroy: Any, *used: "Handle") -> None:
        self._pointer, self._destroy, self._closed = pointer, destroy, False
        self._used: list[Handle] = []
        for handle in used:
            self._use(handle)

    def _use(self, handle: "Handle") -> None:
        handle._n_users += 1
        self._used.append(handle)

    @property
    def _c(self) -> Any:
        """The C object, while it is open."""
        if self._closed:
            raise ValueError(f"this {type(self).__name__} is closed")
        return self._pointer

    def close(self) -> None:
        """Free the C object. Closing twice is no error."""
        if not self._closed:
            self._closed = True
            self._free_unused()

    def _free_unused(self) -> None:
        if not self._closed or self._n_users or self._pointer is None:
            return
        pointer, self._pointer = self._pointer, None
        self._destroy(pointer)
        for handle in self._used:
            handle._n_users -= 1
            handle._free_unused()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
