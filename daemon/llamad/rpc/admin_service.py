"""The methods of llamad.v1.Admin: what changes the service for everybody.

Each converts, calls what owns the matter, and converts back. Who may call what is not decided here.
"""
# ruff: noqa: N802 - the methods are named by admin.proto

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Protocol

from llamad.errors import ErrorKind, LlamadError, invalid
from llamad.logs import fields
from llamad.rpc import admin_messages as convert_admin
from llamad.rpc.from_proto import Rules, check_prefix_name
from llamad.rpc.interceptor import caller
from llamad.rpc.prefix_messages import prefix_text
from llamad.service.state import ModelFacts, ServiceState
from llamad.sizes import compact_size
from llamad.store.recommended import remember
from llamad.store.registry import ModelFile, ModelRegistry, check_name, comparable_path
from llamad.store.transfers import Transfers
from llamad.users import user_name
from llamad_api.v1 import admin_pb2 as pb
from llamad_api.v1 import admin_pb2_grpc

# gRPC shows a client that vanished as the end of its messages, and cancels the call a moment later.
# Where nobody said how long the file is, that moment tells the two apart: what came is saved.
VANISHING_SECONDS = 0.1

log = logging.getLogger(__name__)

ADMIN_NAME = pb.DESCRIPTOR.services_by_name["Admin"].full_name

Context = Any  # grpc.aio.ServicerContext: grpc has no types


class LoadedModels(Protocol):
    """What is in memory, and what shall be: see ``service.model_manager``."""

    async def use(self, name: str, accepted: Callable[[], None]) -> ModelFacts:
        """Serve a model of the directory, now and at every start; accepted is called before."""

    async def unload(self, accepted: Callable[[], None]) -> None:
        """Free the memory of the model; accepted is called before, if there is one."""

    def in_use(self, name: str) -> bool:
        """Whether a model of the directory is loaded or about to be. Blocking; any thread."""

    def selected(self) -> Path | None:
        """Return the place of what the next start would load. Blocking; any thread."""

    def note_added(self, name: str) -> None:
        """Take note of a model that was added."""


class AdminService(admin_pb2_grpc.AdminServicer):
    """The models the service knows, and the one it serves."""

    def __init__(
        self,
        state: ServiceState,
        registry: ModelRegistry,
        transfers: Transfers,
        models: LoadedModels,
        rules: Callable[[], Rules],
    ) -> None:
        """``rules`` returns those of a request that comes now."""
        self._state = state
        self._registry = registry
        self._transfers = transfers
        self._models = models
        self._rules = rules

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """Return the files of the model directory, and the loaded model wherever it lies."""
        serving = None if self._state.serving is None else self._state.serving.model

        def work() -> list[pb.Model]:
            marks = self._marks(serving)
            models = [convert_admin.model(file, **marks) for file in self._registry.scan()]
            if serving is not None and not any(m.loaded and not m.is_adapter for m in models):
                models.insert(0, convert_admin.model(_file(serving), **marks))
            return models

        return pb.ListModelsResponse(models=await asyncio.to_thread(work))

    async def AddModel(
        self, requests: AsyncIterator[pb.AddModelRequest], context: Context
    ) -> AsyncIterator[pb.AddModelResponse]:
        """Receive a model file; answer how much of it is there, and at the end the model."""
        first = await anext(requests, None)
        if first is None:
            raise invalid("start", "must be the first message, there was none")
        wanted = convert_admin.transfer_request(first)
        recommended = convert_admin.recommended_sampling(first)
        async with self._transfers.receive(wanted) as transfer:
            stored = await transfer.present()
            if stored is None:
                offset = await transfer.open()
                yield pb.AddModelResponse(accepted=pb.AddModelResponse.Accepted(offset=offset))
                async for message in requests:
                    await transfer.write(*convert_admin.chunk(message))
                if wanted.file_bytes is None:
                    await asyncio.sleep(VANISHING_SECONDS)
                stored = await transfer.finish()
                self._models.note_added(wanted.name)
                log.info(
                    fields(
                        "model added",
                        model=wanted.name,
                        user=user_name(caller.get().uid),
                        size=compact_size(stored.file.file_bytes),
                        sha256=stored.sha256,
                    )
                )
            await asyncio.to_thread(
                remember,
                self._registry.directory,
                wanted.name,
                recommended,
                is_new=not stored.unchanged,
            )
        serving = None if self._state.serving is None else self._state.serving.model
        marks = await asyncio.to_thread(self._marks, serving)
        yield convert_admin.done(stored, **marks)

    async def UseModel(self, request: pb.UseModelRequest, context: Context) -> pb.UseModelResponse:
        """Load a model; its caller waits until it serves."""
        line = fields("model chosen", model=request.name, user=user_name(caller.get().uid))
        facts = await self._models.use(request.name, lambda: log.info(line))
        marks = await asyncio.to_thread(self._marks, facts)
        return pb.UseModelResponse(
            model=convert_admin.model(_file(facts), **marks), load_seconds=facts.load_seconds
        )

    async def UnloadModel(
        self, request: pb.UnloadModelRequest, context: Context
    ) -> pb.UnloadModelResponse:
        """Free the memory of the model."""
        line = fields("unload asked for", user=user_name(caller.get().uid))
        await self._models.unload(lambda: log.info(line))
        return pb.UnloadModelResponse()

    async def RemoveModel(
        self, request: pb.RemoveModelRequest, context: Context
    ) -> pb.RemoveModelResponse:
        """Delete a model of the directory."""
        name = request.name
        with self._transfers.only(name):
            freed = await asyncio.to_thread(self._remove, name)
        log.info(
            fields(
                "model removed",
                model=name,
                user=user_name(caller.get().uid),
                freed=compact_size(freed),
            )
        )
        return pb.RemoveModelResponse(freed_bytes=freed)

    async def AddPrefix(
        self, request: pb.AddPrefixRequest, context: Context
    ) -> AsyncIterator[pb.AddPrefixResponse]:
        """Read the beginning of prompts and keep it for everybody; answer how far it is."""
        serving, uid = self._state.require(), caller.get().uid
        scheduler, prefixes = serving.scheduler, serving.prefixes
        encode, n_bytes = prefix_text(request, self._rules(), scheduler.model)
        pin = prefixes.new_pin(request.name, await scheduler.tokenize(encode, n_bytes))
        async with aclosing(prefixes.compute(pin, owner_uid=uid)) as progress:
            async for event in progress:
                yield pb.AddPrefixResponse(
                    progress=pb.AddPrefixResponse.Progress(
                        processed_tokens=event.processed_tokens, tokens=event.prompt_tokens
                    )
                )
        saved = await prefixes.keep(pin)
        log.info(
            fields(
                "prefix added",
                name=pin.name,
                user=user_name(uid),
                tokens=len(pin.tokens),
                on_disk=compact_size(saved),
            )
        )
        yield pb.AddPrefixResponse(
            done=pb.AddPrefixResponse.Done(tokens=len(pin.tokens), bytes_on_disk=saved)
        )

    async def RemovePrefix(
        self, request: pb.RemovePrefixRequest, context: Context
    ) -> pb.RemovePrefixResponse:
        """Forget what is pinned under a name."""
        name = check_prefix_name("name", request.name)
        freed = await self._state.require().prefixes.remove(name)
        log.info(
            fields(
                "prefix removed",
                name=name,
                user=user_name(caller.get().uid),
                freed=compact_size(freed),
            )
        )
        return pb.RemovePrefixResponse(freed_bytes=freed)

    def _remove(self, name: str) -> int:
        check_name(name)
        if self._models.in_use(name):
            raise LlamadError(
                ErrorKind.STATE,
                "MODEL_IN_USE",
                f'model {name} is loaded: "llamactl unload", or "llamactl use" of another'
                " model, frees it",
            )
        return self._registry.remove(name)

    def _marks(self, serving: ModelFacts | None) -> convert_admin.Marks:
        """Return where the loaded and the selected model lie. Blocking."""
        return {
            "loaded": None if serving is None else comparable_path(Path(serving.path)),
            "selected": self._models.selected(),
            "adapters": () if serving is None else serving.loaded_adapters,
        }


def _file(model: ModelFacts) -> ModelFile:
    return ModelFile(model.name, Path(model.path), model.file_bytes)
