"""What generation_config.json recommends, as the keys of a file that the service reads."""

import json
from pathlib import Path
from typing import Any

import pytest

from llamad.errors import LlamadError
from llamad.service.settings import own_sampling
from llamad_tools.checkpoints.huggingface_sampling import read_sampling


def read(folder: Path, values: dict[str, Any]) -> dict[str, int | float]:
    (folder / "generation_config.json").write_text(json.dumps(values), encoding="utf-8")
    return read_sampling(folder)


def test_what_is_recommended_is_what_the_service_takes(tmp_path: Path) -> None:
    values = {
        "do_sample": True,
        "temperature": 1,
        "top_k": 20,
        "top_p": 0.8,
        "min_p": None,
        "repetition_penalty": 1.05,
        "bos_token_id": 1,
    }
    entries = read(tmp_path, values)
    assert entries == {
        "general.sampling.temp": 1.0,
        "general.sampling.top_k": 20,
        "general.sampling.top_p": 0.8,
        "general.sampling.penalty_repeat": 1.05,
    }
    assert isinstance(entries["general.sampling.temp"], float)
    taken = own_sampling("m", dict(entries))
    assert taken == {"temperature": 1.0, "top_k": 20, "top_p": 0.8, "repeat_penalty": 1.05}


def test_without_a_file_or_with_greedy_decoding_nothing_is_recommended(tmp_path: Path) -> None:
    assert read_sampling(tmp_path) == {}
    assert read(tmp_path, {"do_sample": False, "temperature": 0.6}) == {}


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", -1), ("top_k", 1.5), ("top_p", "high"), ("top_p", 0)]
)
def test_a_wrong_recommendation_is_refused_by_name(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(LlamadError, match=rf"generation_config.json.*{name} is .*must be"):
        read(tmp_path, {name: value})
