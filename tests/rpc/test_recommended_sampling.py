"""What is recommended when a model is added: kept beside it, and behind what its file says."""

import hashlib
import json
from typing import Any

import grpc
import pytest

from llamad.config import Config, SamplingConfig
from llamad_api.v1 import admin_pb2
from llamad_api.v1 import llamad_pb2 as pb
from rpc.serving import Service, serving
from rpc.test_add_model import add, chunk, failure_of, files, start
from tiny_gguf import Metadata, Tensor, encode_gguf
from unit.schedule.fakes import asynchronous

CONFIG = Config(
    sampling=SamplingConfig(temperature=0.3, min_p=0.1),
    models={"m": {"top_p": 0.5}},
    written=frozenset({"sampling.temperature", "sampling.min_p"}),
)
RECOMMENDED = {"temperature": 0.6, "top_k": 20, "top_p": 0.95}


def model_file(**own: float) -> bytes:
    metadata: dict[str, Metadata] = {"general.architecture": "llama"}
    metadata |= {f"general.sampling.{key}": value for key, value in own.items()}
    tensors: list[Tensor] = []
    return encode_gguf(metadata, tensors)


def started(data: bytes, **fields: Any) -> admin_pb2.AddModelRequest:
    sha256 = hashlib.sha256(data).hexdigest()
    return start(file_bytes=len(data), sha256=sha256, **fields)


async def settings_of(service: Service) -> dict[str, tuple[Any, int]]:
    async with service.stub() as stub:
        response = await stub.GetModel(pb.GetModelRequest(name="m"))
    return {s.name: (json.loads(s.value), s.source) for s in response.model.settings}


@asynchronous
async def test_it_stands_between_the_files_word_and_the_configurations() -> None:
    data = model_file(top_k=7)
    async with serving(config=CONFIG) as service, service.admin() as admin:
        await add(admin, started(data, recommended_sampling=RECOMMENDED), chunk(0, data))
        settings = await settings_of(service)
        assert settings["temperature"] == (0.6, pb.Setting.SOURCE_RECOMMENDED)
        assert settings["top_k"] == (7, pb.Setting.SOURCE_MODEL_FILE)
        assert settings["top_p"] == (0.5, pb.Setting.SOURCE_MODEL_SECTION)
        assert settings["min_p"] == (0.1, pb.Setting.SOURCE_CONFIGURATION)
        assert settings["typical_p"] == (1.0, pb.Setting.SOURCE_BUILT_IN)


@asynchronous
async def test_it_stays_with_the_model_changes_with_the_next_word_and_goes_with_it() -> None:
    one, two = model_file(), model_file(top_k=7)
    async with serving() as service, service.admin() as admin:
        await add(admin, started(one, recommended_sampling=RECOMMENDED), chunk(0, one))
        await add(admin, started(one))  # the same file, and nothing is said
        assert (await settings_of(service))["temperature"][0] == 0.6
        await add(admin, started(one, recommended_sampling={"temperature": 0.2}))
        settings = await settings_of(service)
        assert (settings["temperature"][0], settings["top_k"][0]) == (0.2, 40)
        await add(admin, started(two, replace=True), chunk(0, two))  # another model
        assert (await settings_of(service))["temperature"][1] == pb.Setting.SOURCE_BUILT_IN
        await add(admin, started(two, recommended_sampling=RECOMMENDED))
        assert files(service) == [".m.recommended", "m.gguf"]
        await admin.RemoveModel(admin_pb2.RemoveModelRequest(name="m"))
        assert files(service) == []


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("temperature", -1.0, "recommended_sampling.temperature: "),
        ("top_k", 1.5, "recommended_sampling.top_k: "),
        ("temperature", float("nan"), "recommended_sampling.temperature: "),
        ("seed", 1.0, "recommended_sampling.seed: is none of temperature, top_k"),
    ],
)
def test_what_is_not_allowed_is_refused(name: str, value: float, fault: str) -> None:
    @asynchronous
    async def check() -> None:
        async with serving() as service, service.admin() as admin:
            request = start(recommended_sampling={name: value})
            code, _, message = await failure_of(admin, request)
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert message.startswith(fault)
            assert not service.models.exists() or files(service) == []

    check()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff", b'{"temperature": "hot"}', b'{"fly": 1}', b"[" * 60_000]
)
def test_a_damaged_file_costs_the_recommendation_and_nothing_else(content: bytes) -> None:
    @asynchronous
    async def check() -> None:
        async with serving() as service:
            (service.models / "m.gguf").write_bytes(model_file())
            (service.models / ".m.recommended").write_bytes(content)
            settings = await settings_of(service)
            assert settings["temperature"] == (0.7, pb.Setting.SOURCE_BUILT_IN)

    check()
