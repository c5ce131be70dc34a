"""The metrics in a file, again and again, for the textfile collector of node_exporter.

Owns the file: written beside and renamed, readable by everybody, removed when the service stops. It
is not brought to the disk by force: after a power cut nobody wants old numbers.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from llamad.logs import fields
from llamad.small_file import replace_small

log = logging.getLogger(__name__)

READABLE = 0o644


class Textfile:
    """One file, written every ``period_seconds``."""

    def __init__(
        self, path: Path, period_seconds: float, metrics: Callable[[], Awaitable[str]]
    ) -> None:
        """Write what ``metrics`` returns."""
        self._path = path
        self._period = period_seconds
        self._metrics = metrics
        self._failed = False

    async def run(self) -> None:
        """Write until cancelled, then remove the file."""
        try:
            while True:
                await self.write()
                await asyncio.sleep(self._period)
        finally:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    async def write(self) -> None:
        """Write now; a failure is told once, until it succeeds again."""
        try:
            data = (await self._metrics()).encode()
            await asyncio.to_thread(replace_small, self._path, data, mode=READABLE, durable=False)
        except Exception as error:
            if not self._failed:
                log.error(
                    fields("metrics not written", path=str(self._path), message=str(error)),
                    exc_info=None if isinstance(error, OSError) else error,
                )
            self._failed = True
        else:
            if self._failed:
                log.info(fields("metrics written again", path=str(self._path)))
            self._failed = False
