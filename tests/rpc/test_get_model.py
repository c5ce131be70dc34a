"""What GetModel says: the file's words, the settings, and who said them."""

import json
from pathlib import Path

import grpc

from llamad.config import Config, SamplingConfig
from llamad.gguf.digest import model_digest
from llamad_api.v1 import llamad_pb2 as pb
from llamad_client.values import ModelDetails, value_of
from rpc.serving import error_of_call, serving
from tiny_encoder import TinyEncoder
from tiny_gguf import Metadata, Tensor, TinySpec, encode_gguf, write_tiny_model
from unit.schedule.fakes import asynchronous

CONFIG = Config(
    sampling=SamplingConfig(temperature=0.3, top_k=9),
    models={"tiny": {"system": "Be brief", "top_k": 7, "ctx_size": 64}},
    written=frozenset({"sampling.temperature", "sampling.top_k"}),
)


def _write(path: Path) -> None:
    write_tiny_model(path, TinySpec())


@asynchronous
async def test_a_model_of_the_directory_is_described_with_the_source_of_each_setting() -> None:
    async with serving(config=CONFIG) as service, service.stub() as stub:
        _write(path := service.models / "tiny.gguf")
        response = await stub.GetModel(pb.GetModelRequest(name="tiny"))
        digest, modified = model_digest(path), path.stat().st_mtime
    model = value_of(ModelDetails, response.model)
    assert (model.name, model.loaded, model.n_ctx) == ("tiny", False, None)
    assert model.architecture == "llama"
    assert model.parameters > 0
    assert model.quantization != ""
    assert (model.digest, model.modified_at) == (digest, modified)
    assert model.capabilities == ["completion", "tools"]
    assert model.has_chat_template == bool(model.chat_template)
    settings = {s.name: (json.loads(s.value), s.source) for s in model.settings}
    assert settings["system"] == ("Be brief", "model_section")
    assert settings["top_k"] == (7, "model_section")
    assert settings["temperature"] == (0.3, "configuration")
    assert settings["top_p"] == (0.9, "built_in")
    assert settings["ctx_size"] == (64, "model_section")
    assert settings["thinking"] == ("template", "built_in")
    keys = {entry.key: entry for entry in model.metadata}
    assert json.loads(keys["general.architecture"].value) == "llama"
    assert (keys["tokenizer.ggml.tokens"].value, keys["tokenizer.ggml.tokens"].length > 0) == (
        "",
        True,
    )


@asynchronous
async def test_a_model_for_vectors_offers_them_and_one_that_ranks_nothing_of_ollama() -> None:
    async with serving() as service, service.stub() as stub:
        found = {}
        for pooling in (1, 4):  # mean; rank
            TinyEncoder(pooling=pooling).write(service.models / f"m{pooling}.gguf")
            response = await stub.GetModel(pb.GetModelRequest(name=f"m{pooling}"))
            found[pooling] = list(response.model.capabilities)
    assert found == {1: ["embedding"], 4: []}


@asynchronous
async def test_what_the_file_asks_for_is_said_and_long_or_broken_text_fits_a_message() -> None:
    metadata: dict[str, Metadata] = {
        "general.architecture": "llama",
        "general.license": "mit",
        "general.name": "N",
        "general.sampling.temp": 0.6,
        "tokenizer.chat_template": "<think>" + "{{ x }}" * 1000,
        "llama.context_length": 4096,
    }
    tensors: list[Tensor] = []
    async with serving() as service, service.stub() as stub:
        (service.models / "m.gguf").write_bytes(encode_gguf(metadata, tensors))
        response = await stub.GetModel(pb.GetModelRequest(name="m"))
    model = value_of(ModelDetails, response.model)
    assert (model.title, model.licence, model.n_ctx_train) == ("N", "mit", 4096)
    assert len(model.chat_template) == 7007
    assert model.capabilities == ["completion", "tools", "thinking"]
    settings = {s.name: (json.loads(s.value), s.source) for s in model.settings}
    assert settings["temperature"] == (0.6, "model_file")
    [template] = [e for e in model.metadata if e.key == "tokenizer.chat_template"]
    assert (len(json.loads(template.value)), template.length) == (1024, 7007)


@asynchronous
async def test_a_model_that_is_not_there_or_has_no_name_is_refused() -> None:
    async with serving() as service, service.stub() as stub:
        code, _, metadata = await error_of_call(stub.GetModel(pb.GetModelRequest(name="no")))
        assert (code, metadata["llamad-reason"]) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
        code, message, _ = await error_of_call(stub.GetModel(pb.GetModelRequest(name="../x")))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert message.startswith("name: ")
    async with serving(loaded=False) as service, service.stub() as stub:
        code, _, _ = await error_of_call(stub.GetModel(pb.GetModelRequest()))
        assert code is grpc.StatusCode.UNAVAILABLE


@asynchronous
async def test_requests_get_the_settings_of_the_loaded_model() -> None:
    config = Config(models={"fake": {"system": "S", "thinking": "off"}})
    chat = pb.ChatRequest(messages=[pb.Message(role="user", content="u")])
    async with serving(config=config) as service, service.stub() as stub:
        async for _ in stub.Chat(chat):
            pass
        model = service.bench.model
    assert bytes(model.samplers[0].prompt) == b"system:S|user:u|"
    assert model.chat_template.arguments == [{"enable_thinking": False}]
