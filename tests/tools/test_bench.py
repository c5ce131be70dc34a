"""``llamad bench``: the names of its JSON, what people read, and a share that is one at most."""

import dataclasses
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llamad.__main__ import main
from llamad.board import Board, Heat
from llamad.engine.bindings import EngineModel
from llamad_tools import progress_line
from llamad_tools.benchmark import BenchResult
from llamad_tools.commands.bench import as_text
from llamad_tools.report import Report
from tiny_gguf import TinyModelPath, TinySpec

FLAGS = ["-t", "1", "-p", "8", "-n", "4"]
RESULT = BenchResult(
    model="small.gguf",
    prefill_tokens_per_second=410.2,
    decode_tokens_per_second=45.1,
    load_seconds=0.121,
    model_bytes=98_362_432,
    threads=2,
    sequences=1,
    prompt_tokens=512,
    decode_tokens=64,
    cpu="avx2",
    kv_type="f16",
    huge_pages=True,
    peak_rss_bytes=230_000_000,
    bytes_read_per_token=0.0,
    read_bandwidth_bytes_per_second=6_200_000_000,
    decode_share_of_bandwidth=0.706,
    weight_bytes_per_step=97_100_000,
    decode_beats_reading=False,
    memory_budget_bytes=1_000_000_000,
    resident_bytes=98_000_000,
    locked_bytes=98_000_000,
    streamed_bytes=0,
    disk_speed_bytes_per_second=None,
    disk_read_bytes_per_second=None,
    share_of_disk_speed=None,
    share_of_disk_time_hidden=None,
)
STREAMED = dataclasses.replace(
    RESULT,
    huge_pages=False,
    resident_bytes=58_000_000,
    locked_bytes=58_000_000,
    streamed_bytes=40_000_000,
    bytes_read_per_token=40_010_000.0,
    disk_speed_bytes_per_second=350e6,
    disk_read_bytes_per_second=340e6,
    share_of_disk_speed=0.9,
    share_of_disk_time_hidden=0.81,
)


def test_people_read_rows_with_units() -> None:
    assert as_text(RESULT).splitlines() == [
        "small.gguf: 98.4 MB, in huge pages, loaded in 0.12 s",
        "2 threads, kernels avx2, KV cache f16",
        "",
        "          tokens  sequences   tokens/s  ms a step",
        "prefill      512          1     410.20",
        "decode        64          1      45.10      22.17",
        "",
        "A decode step reads 97.1 MB of weights: 4.4 GB/s, 71 % of the",
        "6.2 GB/s that these threads can read, which is the limit of a sequence alone.",
        "Memory: 230.0 MB at most, 98.0 MB of the model locked."
        " Read from the disk for a token: 0 B.",
    ]


def test_a_model_that_streams_says_what_the_disk_does() -> None:
    assert as_text(STREAMED).splitlines()[-3:] == [
        "Memory: 230.0 MB at most, 58.0 MB of the model locked."
        " Read from the disk for a token: 40.0 MB.",
        "Streamed: 40.0 MB in every step, 90 % of the disk's 350.0 MB/s;",
        "81 % of the reading is hidden behind computing.",
    ]


def test_the_report_is_one_page_about_board_model_and_speed() -> None:
    board = Board("Raspberry Pi 4", "Cortex-A72", 4, 4_000_000_000, "6.8 aarch64", "Ubuntu", "x")
    before, after = Heat(50.0, 1_800_000_000, ()), Heat(81.2, 1_500_000_000, ("throttled",))
    page = Report(board, before, after, STREAMED, version="9.9").as_text()
    assert page.splitlines() == [
        "llamad 9.9 on Raspberry Pi 4",
        "",
        "system      Ubuntu, kernel 6.8 aarch64",
        "processor   4 cores, Cortex-A72, governor x",
        "memory      4.0 GB",
        "kernels     avx2, 2 threads",
        "reads       memory at 6.2 GB/s, disk at 350.0 MB/s",
        "heat        50 °C at 1.80 GHz before, 81 °C at 1.50 GHz after",
        "throttling  none before, throttled after",
        "",
        "model       small.gguf, 98.4 MB, KV cache f16",
        "in memory   58.0 MB, 58.0 MB locked, as mapped; 230.0 MB with everything",
        "streamed    40.0 MB, 40.0 MB read a token",
        "loaded in   0.12 s, 812.9 MB/s",
        "",
        "            tokens  sequences   tokens/s   share of the limit",
        "prefill        512          1     410.20   6.4 times what one row at a time could reach",
        "decode          64          1      45.10   71 % of the memory's speed, 90 % of the disk's;"
        " 81 % of its reading hidden",
    ]


def test_the_report_says_what_the_machine_does_not_tell() -> None:
    board = Board("x86_64", None, 2, None, "6.8", None, None)
    page = Report(board, Heat(None, None, None), Heat(None, None, None), RESULT).as_text()
    assert "heat        unknown before, unknown after" in page
    assert "the disk was not needed" in page


def test_the_report_as_json_has_the_benchs_names_and_the_boards() -> None:
    board = Board("b", None, 2, None, "6.8", None, None)
    heat = Heat(None, None, None)
    report = json.loads(json.dumps(Report(board, heat, heat, RESULT).as_json()))
    assert report["decode_tokens_per_second"] == 45.1
    assert report["board"]["name"] == "b"
    assert set(report) >= {"heat_before", "heat_after", "llamad_version", "locked_bytes"}


def test_sequences_together_are_told_apart_and_an_odd_limit_is_explained() -> None:
    result = dataclasses.replace(
        RESULT, sequences=4, decode_tokens_per_second=120.0, decode_beats_reading=True
    )
    text = as_text(result)
    assert "decode        64          4     120.00      33.33   30.00 each" in text
    assert "(Bare reading was slower than that: another program was in the way" in text


@pytest.mark.parametrize("n_sequences", [1, 3])
def test_json_has_the_names_that_scripts_rely_on(
    tiny_model_path: TinyModelPath, capsys: pytest.CaptureFixture[str], n_sequences: int
) -> None:
    path = tiny_model_path(TinySpec())
    assert main(["bench", *FLAGS, "-b", str(n_sequences), "--json", str(path)]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert captured.err == ""
    assert set(result) >= {
        "prefill_tokens_per_second",
        "decode_tokens_per_second",
        "load_seconds",
        "model_bytes",
        "threads",
        "cpu",
        "peak_rss_bytes",
        "bytes_read_per_token",
        "locked_bytes",
        "streamed_bytes",
        "disk_read_bytes_per_second",
        "share_of_disk_time_hidden",
    }
    assert (result["prompt_tokens"], result["decode_tokens"]) == (8, 4)
    assert (result["threads"], result["sequences"]) == (1, n_sequences)
    assert 0 < result["decode_share_of_bandwidth"] <= 1


def test_decoding_that_reads_faster_than_bare_reading_is_the_limit_itself(
    tiny_model_path: TinyModelPath,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    slow: Callable[[EngineModel, int], float] = lambda model, n_threads: 1.0  # noqa: E731
    monkeypatch.setattr(EngineModel, "read_bandwidth", slow)
    path = str(tiny_model_path(TinySpec()))
    assert main(["bench", *FLAGS, "--json", path]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["decode_share_of_bandwidth"], result["decode_beats_reading"]) == (1, True)
    assert result["read_bandwidth_bytes_per_second"] > 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["bench", *FLAGS], ["reading ", "\rprefill ...", "\rdecode ...", "100 %"]),
        (["perplexity"], ["\rreading the text ...", "left  window 1 of 1"]),
    ],
)
def test_what_takes_long_is_shown_on_a_terminal(
    tiny_model_path: TinyModelPath,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    shown: list[str],
) -> None:
    text = tmp_path / "text"
    text.write_text("the hinterland rests in the warm water of that one winter\n" * 3)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress_line, "REDRAW_SECONDS", 0.0)
    inputs = [str(tiny_model_path(TinySpec())), *([str(text)] if command == ["perplexity"] else [])]
    assert main([*command, *inputs]) == 0
    for words in shown:
        assert words in terminal.getvalue()
    assert terminal.getvalue().endswith(" \r")  # the line is gone
