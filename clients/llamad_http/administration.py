"""What changes the models of the service: who may ask for it here, and how it is done.

The service has the last word: the gateway's own user has to be an administrator of it, too, which
it is not by default. Models are fetched by ``llamactl pull``, a process of its own, so nothing in
the gateway opens a connection to anywhere; only names of the catalogue and repositories of
Hugging Face go to it, never a path or an URL.
"""

import asyncio
import contextlib
import json
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from llamad_client import AsyncClient, ClientError
from llamad_http.authorization import Caller
from llamad_http.config import Config
from llamad_http.errors import HttpError, from_client_error, refusal_of_file
from llamad_http.turns import Share, Turns

_PULLED = re.compile(r"hf\.co/[\w.-]+/[\w.-]+(:[\w.-]+)?|[A-Za-z0-9_][\w.-]*", re.ASCII)
_LINE_BYTES = 1 << 16
_EXIT_REFUSED = 4  # of llamactl
_STATUS_OF_REFUSAL = {"NOT_ADMIN": 403, "DISK_FULL": 507}  # by reason; 422: what the file is


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a model is fetched. file_bytes: None where the source does not say."""

    done_bytes: int
    file_bytes: int | None


def check_admin(caller: Caller, action: str) -> None:
    """Raise HttpError for a caller who may not do what only administrators may."""
    if not caller.is_admin:
        message = f"only API keys that were made with --admin may {action}"
        raise HttpError(403, "NOT_ADMIN", message)


class Administration:
    """The models of the service, as an administrator changes them. All calls raise HttpError."""

    def __init__(self, client: AsyncClient, config: Config) -> None:
        self._client = client
        self._config = config
        self.turns = Turns()

    def may_use(self, caller: Caller) -> bool:
        """Whether a model is loaded because a request of this caller names it."""
        allowed = self._config.auto_use
        return allowed == "everybody" or (allowed == "admins" and caller.is_admin)

    async def use(self, name: str, share: Share | None = None) -> None:
        """Load a model, now and at every start of the service; one at a time.

        share: not held; it is when this returns, so that no other change comes first.
        """
        async with self.turns.change():
            try:
                status = await self._client.status()
                if status.model is None or status.model.name != name:
                    await self._client.use_model(name)
            except ClientError as error:
                raise refusal_of_file(error) from None
            if share is not None:
                share.take()

    async def unload(self) -> None:
        """Free the memory of the loaded model, once the running jobs have ended."""
        async with self.turns.change():
            try:
                await self._client.unload_model()
            except ClientError as error:
                raise from_client_error(error) from None

    async def remove(self, name: str) -> None:
        """Delete a model that is not loaded."""
        try:
            await self._client.remove_model(name)
        except ClientError as error:
            raise from_client_error(error) from None

    async def pull(self, name: str) -> AsyncGenerator[Progress | None, None]:
        """Fetch a model; yield how far it is, and None after each silence. Raises HttpError."""
        if not self._config.pull:
            message = "this gateway fetches no models (service.pull): `llamactl pull` does"
            raise HttpError(403, "PULL_REFUSED", message)
        if not _PULLED.fullmatch(name) or name.endswith(".gguf"):
            message = "must be a name of the catalogue or hf.co/USER/REPO"
            raise HttpError(400, "INVALID_MODEL", f"model: {message}", field="model")
        address = str(self._client.address)
        command = [sys.executable, "-m", "llamactl", "--json", "--socket", address]
        process = await asyncio.create_subprocess_exec(
            *(*command, "pull", "--no-use", "--", name),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            limit=_LINE_BYTES,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        errors = asyncio.ensure_future(process.stderr.read())
        try:
            while True:
                try:
                    async with asyncio.timeout(self._config.ping_seconds):
                        line = await process.stdout.readline()
                except TimeoutError:
                    yield None
                    continue
                if not line:
                    break
                event = json.loads(line)
                if event.get("type") == "progress":
                    yield Progress(event["bytes"], event["file_bytes"])
            if await process.wait():
                raise _failure(process.returncode, await errors)
        finally:
            errors.cancel()
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


def _failure(code: int | None, printed: bytes) -> HttpError:
    """Return the error that llamactl printed last."""
    told: dict[str, Any] = {}
    for line in printed.splitlines():
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            told = found if isinstance(found, dict) and found.get("type") == "error" else told
    reason, message = told.get("reason", "FAILED"), told.get("message", "llamactl pull failed")
    if reason == "NOT_FOUND":
        return HttpError(404, "MODEL_NOT_FOUND", message, field="model")
    refused = _STATUS_OF_REFUSAL.get(reason, 422)
    return HttpError(refused if code == _EXIT_REFUSED else 502, reason, message)
