"""What torch itself writes, where torch is installed: an oracle of the tests, never of llamad."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoints.converting import convert, data_bytes
from llamad.errors import LlamadError
from llamad_tools.checkpoints.pth_file import PthFile
from pth_file import llama_weights, sentencepiece_model, shard_of, write_llama_folder
from tiny_gguf import vocabulary

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[oracle]'")

TYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
WEIGHTS = llama_weights(300, 64, 96, 2, kv_dim=32)
PARAMS = {"dim": 64, "n_heads": 4, "n_kv_heads": 2, "n_layers": 2, "norm_eps": 1e-5}
TOKENIZER = sentencepiece_model(list(zip(*vocabulary(300), strict=True)))


def bits(tensor: Any) -> bytes:
    """Return a tensor's numbers, in the order of its rows."""
    return bytes(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())


def save(path: Path, state: object, **options: object) -> PthFile:
    torch.save(state, path, **options)
    return PthFile(path)


@pytest.mark.parametrize("type_name", TYPES)
def test_tensors_and_parameters_read_back_identical(tmp_path: Path, type_name: str) -> None:
    values = torch.randn(6, 8, generator=torch.Generator().manual_seed(1)).to(TYPES[type_name])
    state = OrderedDict(a=values, b=torch.nn.Parameter(values + 1), c=values[0].clone())
    file = save(tmp_path / "model.pth", state)
    assert file.names() == list(state)
    for name, truth in state.items():
        tensor = file.tensor(name)
        assert (tensor.shape, tensor.type_name) == (tuple(truth.shape), type_name)
        assert tensor.read_rows(0, tensor.n_rows).tobytes() == bits(truth)


@pytest.mark.parametrize("type_name", ["F16", "BF16"])
@pytest.mark.parametrize("n_shards", [1, 2])
def test_a_checkpoint_of_torch_converts_as_one_written_by_hand(
    tmp_path: Path, type_name: str, n_shards: int
) -> None:
    by_hand = write_llama_folder(tmp_path / "hand", WEIGHTS, PARAMS, TOKENIZER, type_name=type_name)
    folder = write_llama_folder(tmp_path / "torch", {}, PARAMS, TOKENIZER)
    for index in range(n_shards):
        state = {}
        for name, values in WEIGHTS.items():
            part = np.ascontiguousarray(shard_of(name, values, index, n_shards))
            if type_name == "BF16":  # cut, as the other writer does, not rounded
                part = (part.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
            state[name] = torch.from_numpy(part.copy()).to(TYPES[type_name])
        torch.save(state, folder / f"consolidated.{index:02}.pth")
    expected = convert(by_hand, tmp_path / "hand.gguf", "Q4_0")
    assert data_bytes(convert(folder, tmp_path / "torch.gguf", "Q4_0")) == data_bytes(expected)


def test_the_metadata_of_a_module_is_ignored(tmp_path: Path) -> None:
    module = torch.nn.Linear(8, 6)
    file = save(tmp_path / "model.pth", module.state_dict())
    assert file.tensor("weight").read_rows(0, 6).tobytes() == bits(module.weight)


def test_views_of_one_storage_are_read_where_they_lie(tmp_path: Path) -> None:
    whole = torch.arange(64, dtype=torch.float16).reshape(8, 8)
    state = {"all": whole, "same": whole, "rows": whole[3:5], "last": whole[7]}
    file = save(tmp_path / "model.pth", state)
    for name, truth in state.items():
        tensor = file.tensor(name)
        assert tensor.read_rows(0, tensor.n_rows).tobytes() == bits(truth)


@pytest.mark.parametrize("view", ["transposed", "columns", "every second row"])
def test_views_that_are_not_contiguous_are_refused_by_name(tmp_path: Path, view: str) -> None:
    whole = torch.arange(64, dtype=torch.float16).reshape(8, 8)
    views = {"transposed": whole.T, "columns": whole[:, :4], "every second row": whole[::2]}
    file = save(tmp_path / "model.pth", {"a.weight": views[view]})
    with pytest.raises(LlamadError, match=r"a\.weight of shape .* has strides"):
        file.tensor("a.weight")


def test_the_format_from_before_the_zip_gets_a_hint(tmp_path: Path) -> None:
    with pytest.raises(LlamadError, match=r"before 1\.6.*torch\.save it again"):
        save(tmp_path / "model.pth", {"a": torch.ones(2)}, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ({"model": {"a": torch.ones(2)}}, "entry 'model' of its state dictionary is no tensor"),
        ({"a": torch.ones(2), "step": 3}, "entry 'step'"),
        (torch.nn.Linear(2, 2), "torch.nn.modules"),
    ],
)
def test_what_is_no_state_dictionary_is_refused(tmp_path: Path, state: object, word: str) -> None:
    with pytest.raises(LlamadError, match=word):
        save(tmp_path / "model.pth", state)
