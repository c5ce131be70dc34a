"""A tokenizer.json that was made from a tokenizer.model gives the same ids as that model."""

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from checkpoints.fast_tokenizer import PREPEND, REPLACE, SPACES, fast_tokenizer, metaspace
from checkpoints.huggingface_folder import write_json
from checkpoints.test_tokenizers import TEXTS
from golden_files import PASSAGE, SENTENCEPIECE_MODEL, cases, excerpt
from llamad.errors import LlamadError
from llamad.text import Tokenizer, tokenizer_from_metadata
from llamad.text.vocabulary import TokenType
from llamad_tools.checkpoints.huggingface_tokenizer import read_tokenizer
from llamad_tools.checkpoints.sentencepiece_file import read_vocabulary

ROLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": {"content": "<unk>"}}


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a reader of a folder with a tokenizer.json and a tokenizer_config.json."""

    def read_content(content: object, n_tokens: int = 330, roles: object = ROLES) -> dict[str, Any]:
        write_json(tmp_path / "tokenizer.json", content)
        write_json(tmp_path / "tokenizer_config.json", roles)
        return read_tokenizer(tmp_path, {"vocab_size": n_tokens})

    return read_content


Read = Callable[..., dict[str, Any]]


def plain(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_bos=False)


def test_llama_2_has_the_ids_of_its_tokenizer_model(read: Read) -> None:
    data = SENTENCEPIECE_MODEL.read_bytes()
    library = SentencePieceProcessor(model_proto=data)
    vocabulary = excerpt("llama-spm")
    metadata = read(fast_tokenizer(data), len(vocabulary.ids))
    tokenizer = tokenizer_from_metadata(metadata)
    for text, ids in cases("llama-spm"):
        assert vocabulary.original(plain(tokenizer, text)) == ids, repr(text)
        assert plain(tokenizer, text) == library.EncodeAsIds(text), repr(text)
    passage = PASSAGE.read_text(encoding="utf-8")
    assert plain(tokenizer, passage) == library.EncodeAsIds(passage)
    original = read_vocabulary(SENTENCEPIECE_MODEL)
    assert metadata["tokenizer.ggml.tokens"] == original.pieces
    assert metadata["tokenizer.ggml.token_type"] == original.types


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_the_model_it_was_made_from(
    read: Read, trained_model: bytes, text: str
) -> None:
    library = SentencePieceProcessor(model_proto=trained_model)
    tokenizer = tokenizer_from_metadata(read(fast_tokenizer(trained_model)))
    assert plain(tokenizer, text) == library.EncodeAsIds(text)


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, trained_model: bytes
) -> tuple[Tokenizer, SentencePieceProcessor]:
    """Return our tokenizer of a tokenizer.json, and the library with the model it came from."""
    folder = tmp_path_factory.mktemp("fast")
    write_json(folder / "tokenizer.json", fast_tokenizer(trained_model))
    tokenizer = tokenizer_from_metadata(read_tokenizer(folder, {"vocab_size": 330}))
    return tokenizer, SentencePieceProcessor(model_proto=trained_model)


@seed(1)
@settings(max_examples=300, deadline=None, database=None)
@given(text=st.text(st.sampled_from("the cat in hat 12 \n▁é日🙂"), max_size=40) | st.text())
def test_ids_of_any_text_are_those_of_the_model(
    pair: tuple[Tokenizer, SentencePieceProcessor], text: str
) -> None:
    tokenizer, library = pair
    assert plain(tokenizer, text) == library.EncodeAsIds(text)


def test_pieces_types_and_the_order_of_scores_are_those_of_the_model(
    read: Read, tmp_path: Path, trained_model: bytes
) -> None:
    metadata = read(fast_tokenizer(trained_model))
    (tmp_path / "tokenizer.model").write_bytes(trained_model)
    original = read_vocabulary(tmp_path / "tokenizer.model")
    assert metadata["tokenizer.ggml.tokens"] == original.pieces
    types = original.types.copy()
    types[original.pieces.index("<tool>")] = TokenType.UNUSED  # tokenizer.json lists it as added
    assert metadata["tokenizer.ggml.token_type"] == types
    for kind, found, expected in zip(
        types, metadata["tokenizer.ggml.scores"], original.scores, strict=True
    ):
        if kind == TokenType.NORMAL:
            assert found == expected


@pytest.mark.parametrize("spaces", SPACES)
def test_spaces_are_spelled_as_defined(read: Read, trained_model: bytes, spaces: str) -> None:
    metadata = read(fast_tokenizer(trained_model, spaces))
    assert metadata["tokenizer.ggml.model"] == "llama"
    assert metadata["tokenizer.ggml.add_space_prefix"] == SPACES[spaces][2]
    tokenizer = tokenizer_from_metadata(metadata)
    assert tokenizer.decode(plain(tokenizer, "the cat  in")) == "the cat  in"


def test_the_setting_of_the_prefix_wins(read: Read, trained_model: bytes) -> None:
    roles = ROLES | {"add_prefix_space": False}
    metadata = read(fast_tokenizer(trained_model), roles=roles)
    assert metadata["tokenizer.ggml.add_space_prefix"] is False


def test_merges_may_be_pairs(read: Read, trained_model: bytes) -> None:
    content = fast_tokenizer(trained_model)
    expected = read(content)
    content["model"]["merges"] = [merge.split(" ") for merge in content["model"]["merges"]]
    assert read(content) == expected


def test_one_way_to_merge_each_piece_is_enough(read: Read, trained_model: bytes) -> None:
    """The trainer of Hugging Face lists the pair that it merged, not every pair."""
    content = fast_tokenizer(trained_model)
    expected = read(content)
    ranks = {tuple(m.split(" ")): i for i, m in enumerate(content["model"]["merges"])}
    vocabulary = content["model"]["vocab"]

    def last_pair(piece: str) -> list[str]:
        symbols = list(piece)
        while len(symbols) > 2:
            found = [
                (ranks[pair], i)
                for i, pair in enumerate(pairwise(symbols))
                if pair in ranks and "".join(pair) != piece
            ]
            _, i = min(found)
            symbols[i : i + 2] = ["".join(symbols[i : i + 2])]
        return symbols

    merged = dict.fromkeys("".join(pair) for pair in ranks)
    content["model"]["merges"] = [last_pair(piece) for piece in merged if piece in vocabulary]
    assert len(content["model"]["merges"]) < len(ranks)
    assert read(content) == expected


# ---- roles, flags, added tokens ----------------------------------------------------------------


def test_roles_come_from_the_special_tokens_map_too(
    read: Read, tmp_path: Path, trained_model: bytes
) -> None:
    write_json(tmp_path / "special_tokens_map.json", ROLES)
    metadata = read(fast_tokenizer(trained_model), roles={})
    roles = {name: metadata[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos")}
    assert roles == {"bos": 1, "eos": 2}
    assert metadata["tokenizer.ggml.unknown_token_id"] == 0
    assert metadata["tokenizer.ggml.token_type"][0] == TokenType.UNKNOWN


@pytest.mark.parametrize(
    ("single", "bos", "eos"),
    [
        (["<s>", None], True, False),
        (["<s>", None, "</s>"], True, True),
        ([None, "</s>"], False, True),
        ([None], True, False),  # says nothing: LLaMA's own way
    ],
)
def test_the_template_says_what_is_put_around_a_text(
    read: Read, trained_model: bytes, single: list[str | None], bos: bool, eos: bool
) -> None:
    content = fast_tokenizer(trained_model)
    content["post_processor"]["single"] = [
        {"Sequence": {"id": "A"}} if text is None else {"SpecialToken": {"id": text}}
        for text in single
    ]
    tokenizer = tokenizer_from_metadata(read(content))
    ids = tokenizer.encode("the")
    assert (ids[0] == 1, ids[-1] == 2) == (bos, eos)


def test_added_tokens_follow_the_vocabulary(read: Read, trained_model: bytes) -> None:
    content = fast_tokenizer(trained_model)
    tool = content["model"]["vocab"]["<tool>"]
    content["added_tokens"] += [
        {"id": tool, "content": "<tool>", "special": False},
        {"id": 331, "content": "<think>", "special": False},
        {"id": 332, "content": "<|im_end|>", "special": False},
        {"id": 400, "content": "<pad>", "special": True},
    ]
    metadata = read(content, n_tokens=334)
    assert metadata["tokenizer.ggml.tokens"][330:] == [
        "[PAD330]",
        "<think>",
        "<|im_end|>",
        "[PAD333]",
    ]
    types = metadata["tokenizer.ggml.token_type"]
    assert types[tool] == TokenType.USER_DEFINED
    assert types[330:] == [
        TokenType.UNUSED,
        TokenType.USER_DEFINED,
        TokenType.CONTROL,
        TokenType.UNUSED,
    ]
    tokenizer = tokenizer_from_metadata(metadata)
    assert 331 in plain(tokenizer, "the <think> cat")
    assert 332 not in plain(tokenizer, "the <|im_end|> cat")


# ---- refusals ----------------------------------------------------------------------------------


def refusal(read: Read, content: dict[str, Any]) -> str:
    with pytest.raises(LlamadError) as caught:
        read(content)
    assert "tokenizer.json" in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("normalizer", "pre_tokenizer", "word"),
    [
        ({"type": "Sequence", "normalizers": [{"type": "NFKC"}, PREPEND, REPLACE]}, None, "NFKC"),
        (PREPEND, None, "Prepend"),
        (REPLACE, metaspace(), "Metaspace"),
        (None, metaspace(prepend_scheme="sometimes"), "sometimes"),
        ({"type": "Lowercase"}, metaspace(), "Lowercase"),
        (REPLACE | {"content": "▁▁"}, None, "Replace"),
    ],
)
def test_spaces_that_are_spelled_otherwise_are_refused(
    read: Read, trained_model: bytes, normalizer: object, pre_tokenizer: object, word: str
) -> None:
    content = fast_tokenizer(trained_model)
    assert word in refusal(
        read, content | {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer}
    )


def test_a_cut_before_every_space_wants_pieces_without_spaces_inside(
    read: Read, trained_model: bytes
) -> None:
    content = fast_tokenizer(trained_model, "Mistral")
    content["pre_tokenizer"]["split"] = True
    expected = read(content)
    assert expected["tokenizer.ggml.add_space_prefix"] is True
    content["model"]["vocab"]["e▁c"] = 330
    content["model"]["merges"].append("e ▁c")
    with pytest.raises(LlamadError) as caught:
        read(content, 331)
    assert "'e▁c' reaches over" in caught.value.message


def test_merges_that_keep_apart_what_sentencepiece_merges_are_refused(
    read: Read, trained_model: bytes
) -> None:
    content = fast_tokenizer(trained_model)
    merges = content["model"]["merges"]
    position = next(i for i, merge in enumerate(merges) if len(merge.replace(" ", "")) > 3)
    piece = merges[position].replace(" ", "")
    splits = [merge for merge in merges if merge.replace(" ", "") == piece]
    kept = f"{piece[:1]} {piece[1:]}"
    content["model"]["vocab"] |= {piece[1:]: 330}
    content["model"]["merges"] = [m for m in merges if m not in splits] + [kept]
    with pytest.raises(LlamadError) as caught:
        read(content, 331)
    assert f"{piece!r} in two parts" in caught.value.message


def test_a_piece_that_nothing_merges_never_comes_out(read: Read, trained_model: bytes) -> None:
    content = copy.deepcopy(fast_tokenizer(trained_model))
    merges = content["model"]["merges"]
    content["model"]["merges"] = [m for m in merges if m.replace(" ", "") != "▁the"]
    tokenizer = tokenizer_from_metadata(read(content))
    token = content["model"]["vocab"]["▁the"]
    assert tokenizer.vocabulary.types[token] == TokenType.UNUSED
    assert token not in plain(tokenizer, "the cat in the hat")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"merges": ["zz yy"]}, "'zzyy', which is no token"),
        ({"merges": []}, "model.merges"),
        ({"vocab": {"a": 330}}, "id 330"),
        ({"type": "Unigram"}, "'Unigram'"),
    ],
)
def test_a_model_that_contradicts_itself_is_refused(
    read: Read, trained_model: bytes, changes: dict[str, Any], word: str
) -> None:
    content = fast_tokenizer(trained_model)
    content["model"] |= changes
    assert word in refusal(read, content)
