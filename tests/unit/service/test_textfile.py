"""The metrics in a file for node_exporter."""

import asyncio
import contextlib
import logging
import os
from pathlib import Path

import pytest

from llamad.service.textfile import Textfile
from unit.schedule.fakes import asynchronous


def test_it_is_replaced_whole_readable_by_everybody_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "llamad.prom"
    texts = iter(("first\n", "second\n"))
    seen: list[tuple[str, int, list[Path]]] = []

    written_twice = asyncio.Event()

    async def metrics() -> str:
        if path.exists():
            seen.append((path.read_text(), path.stat().st_mode & 0o777, names()))
        text = next(texts, None)
        if text is None:
            written_twice.set()
            await asyncio.Event().wait()
        assert text is not None
        return text

    def names() -> list[Path]:
        return list(tmp_path.iterdir())

    @asynchronous
    async def check() -> None:
        task = asyncio.create_task(Textfile(path, 0.0, metrics).run())
        await written_twice.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    before = os.umask(0o077)
    try:
        check()
    finally:
        os.umask(before)
    assert seen == [
        ("first\n", 0o644, [path]),
        ("second\n", 0o644, [path]),
    ]
    assert names() == []


def test_a_failure_is_logged_once_until_it_succeeds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "absent"

    async def metrics() -> str:
        return "text\n"

    @asynchronous
    async def check() -> None:
        file = Textfile(folder / "llamad.prom", 15.0, metrics)
        await file.write()
        await file.write()
        folder.mkdir()
        await file.write()
        await file.write()
        assert (folder / "llamad.prom").read_text() == "text\n"

    with caplog.at_level(logging.INFO):
        check()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "metrics not written" in told[0]
    assert "No such file or directory" in told[0]
    assert str(folder / "llamad.prom") in told[0]
    assert "metrics written again" in told[1]
