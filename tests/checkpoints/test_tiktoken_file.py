"""Llama 3's checkpoints: its tokenizer.model gives the ids of tiktoken, its RoPE is scaled."""

import base64
from collections.abc import Sequence
from pathlib import Path

import pytest
import regex
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from checkpoints.converting import convert, read_tensors
from checkpoints.huggingface_folder import LLAMA3_PATTERN, byte_alphabet
from golden_files import cases, excerpt
from llamad.engine.bindings import EngineModel, read_metadata
from llamad.errors import LlamadError
from llamad.text import Tokenizer, load_tokenizer, tokenizer_from_metadata
from llamad.text.vocabulary import TokenType
from llamad_tools.checkpoints.tiktoken_file import read_tiktoken
from pth_file import llama_weights, write_llama_folder

# Ranked as a trainer would: what is merged stands before what it is merged into.
MERGED = [
    *(b"th", b"he", b"in", b"an", b"the", b" t", b" the", b" a", b" an", b"er", b"ing"),
    *(b"12", b"23", b"123", b"\n\n", b"  ", b"    ", b"\xc3\xa9", b"\xe6\x97", b"\xe6\x97\xa5"),
]
RANKED = [*(bytes((i,)) for i in range(256)), *MERGED]
N_TOKENS = len(RANKED) + 256


def tokenizer_model(tokens: Sequence[bytes]) -> bytes:
    """Return the file of ranked tokens."""
    lines = (b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens))
    return b"".join(lines)


def tiktoken_ids(text: str) -> list[int]:
    """Encode as tiktoken does (its educational.py): the best pair of a word first."""
    ranks = {token: rank for rank, token in enumerate(RANKED)}
    ids = []
    for word in regex.findall(LLAMA3_PATTERN, text):
        parts = [bytes((byte,)) for byte in word.encode()]
        while True:
            joined = [parts[i] + parts[i + 1] for i in range(len(parts) - 1)]
            found = [(ranks[pair], i) for i, pair in enumerate(joined) if pair in ranks]
            if not found:
                break
            _, i = min(found)
            parts[i : i + 2] = [joined[i]]
        ids += [ranks[part] for part in parts]
    return ids


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("llama3") / "tokenizer.model"
    path.write_bytes(tokenizer_model(RANKED))
    return tokenizer_from_metadata(read_tiktoken(path, is_llama_3_1=False))


@seed(1)
@settings(max_examples=300, deadline=None, database=None)
@given(text=st.text(st.sampled_from("the cat in 123\n é日<|eot_id|>"), max_size=40) | st.text())
def test_ids_of_any_text_are_those_of_tiktoken(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_bos=False)
    assert ids == tiktoken_ids(text)
    assert tokenizer.decode(ids) == text


def test_llama_3_has_the_ids_of_its_golden_cases(tmp_path: Path) -> None:
    vocabulary = excerpt("llama-bpe")
    metadata = vocabulary.metadata
    spelled, types = (metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type"))
    assert isinstance(spelled, list)
    assert isinstance(types, list)
    byte_of = {character: byte for byte, character in enumerate(byte_alphabet())}
    tokens = [
        bytes(byte_of[character] for character in str(text))
        for text, kind in zip(spelled, types, strict=True)
        if kind == TokenType.NORMAL
    ]
    (tmp_path / "tokenizer.model").write_bytes(tokenizer_model(tokens))
    read = read_tiktoken(tmp_path / "tokenizer.model", is_llama_3_1=False)
    assert read["tokenizer.ggml.tokens"] == spelled
    assert read["tokenizer.ggml.merges"] == metadata["tokenizer.ggml.merges"]
    tokenizer = tokenizer_from_metadata(read)
    for text, ids in cases("llama-bpe"):
        assert vocabulary.original(tokenizer.encode(text, add_bos=False)) == ids, repr(text)


@pytest.mark.parametrize("is_llama_3_1", [False, True])
def test_special_tokens_follow_the_ranks(tmp_path: Path, is_llama_3_1: bool) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(tokenizer_model(RANKED))
    tokenizer = tokenizer_from_metadata(read_tiktoken(path, is_llama_3_1=is_llama_3_1))
    n = len(RANKED)
    tokens = tokenizer.vocabulary.tokens
    assert len(tokens) == len(set(tokens)) == N_TOKENS
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.eot_id) == (n, n + 1, n + 9)
    assert tokenizer.eom_id == (n + 8 if is_llama_3_1 else None)
    assert tokens[n + 6 : n + 8] == ["<|start_header_id|>", "<|end_header_id|>"]
    assert set(tokenizer.vocabulary.types[n:]) == {TokenType.CONTROL}
    assert tokenizer.encode("the")[0] == n


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (tokenizer_model(RANKED[:100]), "byte 0x64"),
        (tokenizer_model(RANKED).replace(b" 7\n", b" 8\n"), "line 8"),
        (tokenizer_model(RANKED) + b"a!= 276\n", "line 277"),
        (tokenizer_model([*RANKED, b"a" * 1025]), "line 277"),
        (b"\x00\x01\x02", "line 1"),
    ],
)
def test_a_broken_file_is_refused_by_its_line(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(LlamadError) as caught:
        read_tiktoken(path, is_llama_3_1=False)
    assert str(path) in caught.value.message
    assert word in caught.value.message


@pytest.mark.parametrize(("is_scaled", "context"), [(False, 8192), (True, 131072)])
def test_a_checkpoint_of_llama_3_is_converted(
    tmp_path: Path, is_scaled: bool, context: int
) -> None:
    weights = llama_weights(N_TOKENS, 64, 96, 2, kv_dim=32)
    params = {
        **{"dim": 64, "n_heads": 4, "n_kv_heads": 2, "n_layers": 2, "norm_eps": 1e-5},
        **{"rope_theta": 500000.0, "vocab_size": N_TOKENS, "use_scaled_rope": is_scaled},
    }
    folder = write_llama_folder(tmp_path / "llama", weights, params, tokenizer_model(RANKED))
    path = convert(folder, tmp_path / "model.gguf")
    assert read_metadata(path)["llama.context_length"] == context
    tokenizer = load_tokenizer(path)
    assert tokenizer.encode("the", add_bos=False) == tiktoken_ids("the")
    tensors = read_tensors(path)
    assert ("rope_freqs.weight" in tensors) == is_scaled
    if is_scaled:
        factors = tensors["rope_freqs.weight"][1].tolist()
        assert factors[0] == 1.0
        assert factors[-1] == 8.0
    with EngineModel(path) as model:
        assert model.info.vocab_size == N_TOKENS
