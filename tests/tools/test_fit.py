"""``llamad fit`` on files: its sizes are those that quantize writes and the engine reads."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from family_models import FAMILY_MODELS
from llamad.__main__ import main
from llamad.config import ModelConfig, load_config
from llamad.engine.bindings import Engine, EngineModel, StopFlag
from llamad.errors import LlamadError
from llamad.memory.demand import engine_params
from llamad.service.loading import load
from llamad_tools.advice.choice import memory_here
from llamad_tools.advice.recommendation import fit
from llamad_tools.advice.source import read_shape
from llamad_tools.quantize.mixes import MIXES
from llamad_tools.quantize.rewrite import quantize
from pretend_machine import machine
from tiny_gguf import TinyModelPath, TinySpec

WIDE = TinySpec(dim=256, hidden_dim=512, n_layers=4, n_heads=4, n_kv_heads=2, weight_type="F16")
TIED = TinySpec(weight_type="Q8_0", tied_output=True, architecture="qwen2", head_dim=40)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("spec", [WIDE, TIED], ids=["wide", "tied"])
def test_sizes_are_those_of_the_written_file(
    tiny_model_path: TinyModelPath, tmp_path: Path, spec: TinySpec, mix: str
) -> None:
    source, target = tiny_model_path(spec), tmp_path / "out.gguf"
    expected = {item.name: item for item in fit(read_shape(source), 1 << 32).mixes}[mix]
    quantize(source, target, MIXES[mix])
    assert expected.file_bytes == target.stat().st_size
    with EngineModel(target) as model:
        assert expected.streamed_bytes == model.info.streamed_bytes


@pytest.mark.parametrize("mix", ["F16", "Q8_0", "Q4_K_M", "IQ4_NL"])
@pytest.mark.parametrize("spec", [WIDE, TIED], ids=["wide", "tied"])
def test_cache_and_scratch_are_those_of_the_engine_of_the_written_file(
    tiny_model_path: TinyModelPath, tmp_path: Path, spec: TinySpec, mix: str
) -> None:
    source, target = tiny_model_path(spec), tmp_path / "out.gguf"
    sizes = read_shape(source).sizes(MIXES[mix], ModelConfig())
    quantize(source, target, MIXES[mix])
    with EngineModel(target) as model:
        for kv_type, demand in sizes.demands.items():
            params = engine_params(replace(ModelConfig(), kv_type=kv_type), 512)
            with Engine(model, **params) as engine:
                assert engine.info.scratch_bytes == demand.scratch_bytes
                n_blocks = engine.info.kv_blocks_total
                assert engine.info.kv_bytes == n_blocks * demand.kv_block_bytes


@pytest.mark.parametrize("memory", ["700MiB", "760MiB", "2GiB"])
@pytest.mark.parametrize("spec", [WIDE, TIED], ids=["wide", "tied"])
def test_the_loader_plans_what_fit_says_to_the_byte(
    tiny_model_path: TinyModelPath, capsys: pytest.CaptureFixture[str], spec: TinySpec, memory: str
) -> None:
    path = tiny_model_path(spec)
    assert main(["fit", str(path), "--memory", memory, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    config = ModelConfig(path=str(path), memory_budget=report["budget_bytes"], lock=False)
    if report["plan_as_it_is"] is None:
        with pytest.raises(LlamadError, match="a KV cache of"):
            load(config, StopFlag())
        return
    model = load(config, StopFlag())
    assert asdict(model.plan) == report["plan_as_it_is"]
    assert model.engine_info.scratch_bytes == model.plan.scratch_bytes
    assert model.engine_info.kv_bytes == model.plan.kv_bytes
    model.close()


def test_json_for_another_machine(
    tiny_model_path: TinyModelPath, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", str(tiny_model_path(WIDE)), "--memory", "4GiB", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["budget_bytes"] == (4096 - 614) << 20
    assert report["memory"]["machine"] == 4 << 30
    assert list(report["bandwidth_bytes_per_second"]) == ["Pi 4", "Pi 5"]
    assert {mix["name"] for mix in report["mixes"]} == set(MIXES)
    assert report["kv_bytes"]["512"]["f16"] == 512 * 4 * 2 * 2 * 64 * 2
    assert report["recommendation"]["mix"] == "Q6_K"
    assert report["settings"] == {}
    assert [way["name"] for way in report["ways"]] == ["best", "faster", "closer", "as it is"]
    assert report["source_types"] == []


def test_the_table_has_a_line_for_each_mix_and_a_speed_of_this_machine(
    tiny_model_path: TinyModelPath, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", str(tiny_model_path(WIDE)), "--verbose"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("mix ") and line.endswith("  here")]
    assert {line.split()[0] for line in lines if line} >= set(MIXES)


@pytest.mark.parametrize("weight_type", ["F16", "Q8_0", "Q4_0", "Q4_K"])
@pytest.mark.parametrize("memory", ["660MB", "4GB", ""])
def test_the_report_is_one_screen_and_says_what_to_do_first(
    tiny_model_path: TinyModelPath,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    weight_type: str,
    memory: str,
) -> None:
    path = tmp_path / "m.gguf"
    path.symlink_to(tiny_model_path(replace(WIDE, weight_type=weight_type)))
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "m.gguf", *(["--memory", memory] if memory else [])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert lines[3].startswith("nothing fits: " if memory == "660MB" else ("take ", "keep it "))


def test_settings_are_told_as_the_configuration_takes_them(
    tiny_model_path: TinyModelPath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_model_path(replace(WIDE, n_ctx_train=1 << 17))
    assert main(["fit", str(path), "--memory", "4GB", "--ctx-size", "100000"]) == 0
    before, after = capsys.readouterr().out.split("  and in /etc/llamad/llamad.toml, ", 1)
    heading, *settings = after.split("\n\n")[0].splitlines()
    assert heading == "under [model]:"
    config = tmp_path / "llamad.toml"
    config.write_text("[model]\n" + "\n".join(settings))
    assert load_config(config).model.ctx_size == 100_000
    assert "llamad quantize" in before


@pytest.mark.parametrize("weight_type", ["Q4_0", "Q4_K", "Q5_K", "Q6_K"])
def test_what_is_quantized_stays_as_it_is_and_hears_of_the_original(
    tiny_model_path: TinyModelPath,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    weight_type: str,
) -> None:
    path, target = tiny_model_path(replace(WIDE, weight_type=weight_type)), tmp_path / "out.gguf"
    assert main(["fit", str(path), "--memory", "4GB", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    advice = report["recommendation"]
    assert (advice["action"], advice["mix"]) == ("keep", None)
    assert f"quantized already ({weight_type})" in advice["reason"]
    assert ("made from the original" in advice["reason"]) == (weight_type != "Q6_K")
    roomy = machine(tmp_path, available_kib=1 << 20)
    monkeypatch.setattr("llamad_tools.advice.choice.Machine", lambda: roomy)
    assert main(["quantize", str(path), str(target), "auto"]) == 1
    messages = capsys.readouterr().err.splitlines()
    assert messages[0].startswith("llamad: auto: as it is: it is quantized already")
    assert "nothing is written" in messages[1]
    assert not target.exists()


@pytest.mark.parametrize("weight_type", ["F32", "F16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("memory", ["640MB", "720MB", "800MB", "1GB", "8GB"])
def test_nothing_larger_than_the_file_at_hand_is_recommended(
    tiny_model_path: TinyModelPath,
    capsys: pytest.CaptureFixture[str],
    weight_type: str,
    memory: str,
) -> None:
    path = tiny_model_path(replace(WIDE, weight_type=weight_type))
    assert main(["fit", str(path), "--memory", memory, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    sizes = {mix["name"]: mix["file_bytes"] for mix in report["mixes"]}
    mix = report["recommendation"]["mix"]
    assert mix is None or sizes[mix] < path.stat().st_size


@pytest.mark.parametrize(
    ("cgroup_max", "budget", "cgroup"),
    [("max", 3 << 30, None), (str(1 << 30), 1 << 30, 1 << 30)],
)
def test_the_budget_is_the_least_of_memory_and_cgroup(
    tmp_path: Path, cgroup_max: str, budget: int, cgroup: int | None
) -> None:
    memory = memory_here(machine(tmp_path, available_kib=3 << 20, cgroup_max=cgroup_max))
    assert (memory.budget, memory.available, memory.cgroup) == (budget, 3 << 30, cgroup)


def test_an_unknown_memory_asks_for_the_option(tmp_path: Path) -> None:
    with pytest.raises(LlamadError, match="give --memory"):
        memory_here(machine(tmp_path, available_kib=None))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--memory", "much"], "'much' is no memory size"),
        (["--memory", "500M"], "not more than the 614 MiB"),
        (["--ctx-size", "0"], "'0': 1 to"),
    ],
)
def test_wrong_usage_is_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fit", "model.gguf", *arguments])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_quantize_auto_takes_the_recommendation_and_says_so(
    tiny_model_path: TinyModelPath,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, target, named = tiny_model_path(WIDE), tmp_path / "out.gguf", tmp_path / "named.gguf"
    roomy = machine(tmp_path, available_kib=1 << 20)
    monkeypatch.setattr("llamad_tools.advice.choice.Machine", lambda: roomy)
    assert main(["quantize", str(source), str(target), "auto"]) == 0
    assert capsys.readouterr().err.startswith("llamad: auto: Q6_K: the smallest mix that loses")
    quantize(source, named, MIXES["Q6_K"])
    assert target.read_bytes() == named.read_bytes()


def test_quantize_auto_writes_nothing_where_nothing_fits(
    tiny_model_path: TinyModelPath,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, target = tiny_model_path(WIDE), tmp_path / "out.gguf"
    small = machine(tmp_path, available_kib=32 << 10)
    monkeypatch.setattr("llamad_tools.advice.choice.Machine", lambda: small)
    assert main(["quantize", str(source), str(target), "auto"]) == 1
    assert "no mix of known quality stays in memory" in capsys.readouterr().err
    assert not target.exists()


@pytest.mark.parametrize("family", FAMILY_MODELS)
def test_a_model_of_each_family_is_planned(tiny_model_path: TinyModelPath, family: str) -> None:
    path = tiny_model_path(replace(FAMILY_MODELS[family], weight_type="F16"))
    assert main(["fit", str(path), "--json"]) == 0
