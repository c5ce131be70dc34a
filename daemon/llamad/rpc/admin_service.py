"""The methods of llamad.v1.Admin: what changes the service for everybody.

Each converts, calls what owns the matter, and converts back. Who may call what is not decided here.
"""
# ruff: noqa: N802 - the methods are named by admin.proto

import asyncio
from typing import Any

from llamad.models.registry import ModelRegistry
from llamad.rpc.state import ServiceState
from llamad_api.v1 import admin_pb2, admin_pb2_grpc

ADMIN_NAME = admin_pb2.DESCRIPTOR.services_by_name["Admin"].full_name

Context = Any  # grpc.aio.ServicerContext: grpc has no types


class AdminService(admin_pb2_grpc.AdminServicer):
    """The models the service knows."""

    def __init__(self, state: ServiceState, registry: ModelRegistry) -> None:
        self._state = state
        self._registry = registry

    async def ListModels(
        self, request: admin_pb2.ListModelsRequest, context: Context
    ) -> admin_pb2.ListModelsResponse:
        """Return the files of the model directory, and the loaded model wherever it lies."""
        loaded = None if self._state.serving is None else self._state.serving.model
        files = await asyncio.to_thread(self._registry.scan)
        models = [
            admin_pb2.Model(
                name=file.name,
                path=str(file.path),
                file_bytes=file.file_bytes,
                loaded=loaded is not None and str(file.path) == loaded.path,
            )
            for file in files
        ]
        if loaded is not None and not any(model.loaded for model in models):
            models.insert(
                0,
                admin_pb2.Model(
                    name=loaded.name, path=loaded.path, file_bytes=loaded.file_bytes, loaded=True
                ),
            )
        return admin_pb2.ListModelsResponse(models=models)
