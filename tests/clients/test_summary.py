"""What status and top say to people."""

import pytest

from llamactl import summary
from llamad_api.v1 import llamad_pb2 as pb
from llamad_client import Board, Job, Status
from llamad_client.values import value_of


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "0 s"),
        (35, "35 s"),
        (60, "1 min"),
        (725, "12 min 5 s"),
        (10_920, "3 h 2 min"),
        (187_200, "2 d 4 h"),
        (86_460, "1 d"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert summary.duration(seconds) == text


def _board(**fields: object) -> Board:
    return value_of(Board, pb.Board(**fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("board", "heat", "words"),
    [
        ({}, "", []),
        ({"temperature_celsius": 61.4}, "61 °C", []),
        ({"temperature_celsius": 61.4, "throttled": False}, "61 °C, not slowed down", []),
        ({"under_voltage": True, "throttled": True}, "", ["too weak now"]),
        ({"under_voltage_before": True, "throttled_before": True}, "", ["was too weak"]),
        ({"throttled": True, "throttled_before": True}, "", ["too hot now"]),
        ({"throttled_before": True}, "", ["slowed itself down since"]),
        (
            {"throttled": True, "under_voltage": False, "under_voltage_before": True},
            "",
            ["was too weak", "too hot now"],
        ),
    ],
)
def test_a_board_that_is_slowed_down_is_told_with_what_to_do(
    board: dict[str, object], heat: str, words: list[str]
) -> None:
    told = _board(**board)
    assert summary.heat(told) == heat
    sentences = summary.warnings(told)
    assert len(sentences) == len(words)
    for sentence, part in zip(sentences, words, strict=True):
        assert part in sentence
        assert ("better power supply" in sentence) is ("too weak" in part)


def test_jobs_are_told_by_class() -> None:
    jobs = [
        value_of(Job, pb.Job(state=state, priority=priority))
        for state, priority in (
            (pb.JOB_STATE_DECODE, pb.PRIORITY_BATCH),
            (pb.JOB_STATE_PREFILL, pb.PRIORITY_INTERACTIVE),
            (pb.JOB_STATE_QUEUED, pb.PRIORITY_BATCH),
            (pb.JOB_STATE_QUEUED, pb.PRIORITY_BATCH),
        )
    ]
    assert summary.by_class(jobs) == {
        "interactive": {"queued": 0, "running": 1},
        "normal": {"queued": 0, "running": 0},
        "batch": {"queued": 2, "running": 1},
    }
    status = value_of(
        Status,
        pb.GetStatusResponse(jobs_running=2, jobs_queued=2, sequence_slots=4, queue_capacity=64),
    )
    text = "2 of 4 run (1 interactive, 1 batch), 2 of 64 wait (2 batch)"
    assert summary.queue(status, jobs) == text
    assert summary.speed(status) == ""


def test_the_speed_is_that_of_a_request_alone() -> None:
    response = pb.GetStatusResponse()
    response.model.seconds_per_token = 0.25
    assert summary.speed(value_of(Status, response)).startswith("4 tokens/s")
