"""Folders of BERT, as sentence-transformers saves them: the rows they make, and what is refused."""

import json
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoints.converting import convert, refused
from checkpoints.huggingface_folder import safetensors
from llamad.engine.bindings import Engine, EngineModel, Run
from llamad.text import tokenizer_from_metadata
from reference import engine_rounding, load
from reference.encoder import encode
from tiny_encoder import TinyEncoder
from unit.text.vocabularies import WORD_PIECES

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
    "vocab_size": TinyEncoder().vocab_size,
}
OUTER = {
    "token_embd": "embeddings.word_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
}
INNER = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
MODULES = [
    {"path": "", "type": "sentence_transformers.models.Transformer"},
    {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def their_name(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    if stem in OUTER:
        return f"{OUTER[stem]}.{suffix}"
    _, layer, part = stem.split(".")
    return f"encoder.layer.{layer}.{INNER[part]}.{suffix}"


def tokenizer_json() -> dict[str, Any]:
    pieces = [p.removeprefix("▁") if p.startswith("▁") else f"##{p}" for p in WORD_PIECES]
    vocabulary = {text: i for i, text in enumerate([*SPECIALS, *pieces])}
    return {
        "added_tokens": [
            {"id": i, "content": text, "special": True} for i, text in enumerate(SPECIALS)
        ],
        "normalizer": {"type": "BertNormalizer", "lowercase": True, "strip_accents": None},
        "model": {"type": "WordPiece", "vocab": vocabulary, "unk_token": "[UNK]"},
    }


class Folder:
    """A folder of a tiny encoder; its parts may be changed before it is written."""

    def __init__(self, path: Path) -> None:
        """Take the weights of the tests' encoder."""
        self.path = path
        encoder = path.with_suffix(".theirs.gguf")
        TinyEncoder().write(encoder)
        self.weights = {
            their_name(name): np.asarray(weight.values, np.float32)
            for name, weight in load(encoder).weights.items()
        }
        self.config = dict(CONFIG)
        self.tokenizer = tokenizer_json()
        self.modules: list[Any] = list(MODULES)
        self.pooling: dict[str, Any] = {"pooling_mode_mean_tokens": True}

    def write(self) -> Path:
        """Write the files."""
        (self.path / "1_Pooling").mkdir(parents=True)
        (self.path / "model.safetensors").write_bytes(safetensors(self.weights))
        for name, content in (
            ("config.json", self.config),
            ("tokenizer.json", self.tokenizer),
            ("modules.json", self.modules),
            ("1_Pooling/config.json", self.pooling),
        ):
            (self.path / name).write_text(json.dumps(content))
        return self.path


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "folder")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_a_converted_encoder_makes_the_rows_of_its_weights(
    tmp_path: Path, folder: Folder, out: Path, prefix: str
) -> None:
    folder.weights = {prefix + name: values for name, values in folder.weights.items()}
    folder.weights[prefix + "pooler.dense.bias"] = np.zeros(64, np.float32)  # of another task
    path = convert(folder.write(), out)
    with EngineModel(str(path)) as model, Engine(model, n_threads=1, n_ctx=32) as engine:
        metadata = model.metadata()
        tokens = tokenizer_from_metadata(metadata).encode("Hello, unaffable café!")
        engine.forward([Run(tokens, 0, (0,), 0)])
        sums = array("d", bytes(8 * 64))
        engine.add_rows(0, len(tokens), sums)
    names = [tokenizer_json()["model"]["vocab"][text] for text in ("[CLS]", "hello", ",", "un")]
    assert (tokens[:4], tokens[-1]) == (names, 3)
    assert metadata["bert.pooling_type"] == 1
    assert metadata["tokenizer.ggml.token_type_count"] == 2  # llama.cpp loads no BERT without
    theirs = folder.path.with_suffix(".theirs.gguf")
    expected = encode(theirs, tokens, engine_rounding("f16")).sum(axis=0)
    assert np.abs(np.array(sums) - expected).max() < 5e-3


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda f: f.config.update(hidden_act="relu"), "hidden_act 'relu'"),
        (lambda f: f.config.update(position_embedding_type="relative_key"), "'relative_key'"),
        (lambda f: f.config.update(max_position_embeddings=511), "position_embd.weight"),
        (lambda f: f.config.update(type_vocab_size=3), "token_types.weight"),
        (lambda f: f.weights.pop("embeddings.LayerNorm.bias"), "token_embd_norm.bias is missing"),
        (lambda f: f.tokenizer["normalizer"].update(clean_text=False), "normalizer.clean_text"),
        (lambda f: f.tokenizer.update(normalizer=None), "normalizer is not supported"),
        (
            lambda f: f.tokenizer["model"].update(continuing_subword_prefix="@@"),
            "continuing_subword_prefix '@@'",
        ),
        (lambda f: f.tokenizer["model"]["vocab"].pop("[CLS]"), "has no token [CLS]"),
        (lambda f: f.modules.append({"path": "3_Dense", "type": "a.Dense"}), "module 'a.Dense'"),
        (lambda f: f.modules.append("Dense"), "module 'Dense' has no type and path"),
        (lambda f: f.modules[1].update(path="../1_Pooling"), "names a file in another folder"),
        (lambda f: f.modules[1].update(path=".."), "names a file in another folder: .."),
        (lambda f: f.pooling.update(pooling_mode_cls_token=True), "pooling modes"),
        (lambda f: f.pooling.clear(), "pooling modes: none"),
    ],
)
def test_what_no_file_can_say_is_refused(
    folder: Folder, out: Path, capsys: pytest.CaptureFixture[str], change: Any, word: str
) -> None:
    folder.modules = [dict(module) for module in MODULES]
    change(folder)
    assert word in refused(capsys, folder.write(), out)
