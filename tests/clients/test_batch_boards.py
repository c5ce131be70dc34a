"""llamactl batch over several services: every row once, in order, though services come and go."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clients.running import RunningService, running_service
from clients.test_llamactl import json_lines, prompts, run
from llamactl.batch_file import Answers, Row
from llamactl.batch_order import InOrder
from llamactl.batch_queue import RowQueue
from llamactl.commands.batch import _Batch
from llamad_client import NotRunning, Refused, TextDelta
from unit.schedule.fakes import saying

ROWS = [Row(number, number, f"question {number}", {}) for number in range(1, 31)]


# ---- the queue -----------------------------------------------------------------------------------


def test_rows_of_a_service_that_is_gone_come_first_again() -> None:
    queue = RowQueue(ROWS[:3])
    first, second = queue.take(0, wait=False), queue.take(1, wait=False)
    assert (first, second) == (ROWS[0], ROWS[1])
    queue.give_back([ROWS[0]])
    assert not queue.belongs_to_another(ROWS[0], 0)
    assert queue.take(1, wait=True) is ROWS[0]
    assert queue.belongs_to_another(ROWS[0], 0)
    queue.end(ROWS[0])
    assert queue.belongs_to_another(ROWS[0], 0)
    assert queue.another_works(0)
    assert not queue.another_works(1)


def test_a_service_without_rows_waits_for_what_others_give_back() -> None:
    queue = RowQueue(ROWS[:1])
    assert queue.take(0, wait=True) is ROWS[0]
    assert queue.take(1, wait=False) is None
    taken: list[Row | None] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take(1, wait=True)))
    thread.start()
    queue.give_back(ROWS[:1])
    thread.join()
    assert taken == [ROWS[0]]
    queue.end(ROWS[0])
    assert queue.is_done
    assert queue.take(0, wait=True) is None


# ---- the order -----------------------------------------------------------------------------------


def test_early_answers_wait_in_a_file_for_their_turn_also_for_a_second_run(tmp_path: Path) -> None:
    out, early = tmp_path / "out", tmp_path / "out.early"
    with Answers(out) as answers:
        order = InOrder(answers, ROWS[:4])
        order.add(ROWS[2], {"text": "three"})
        order.add(ROWS[0], {"text": "one"})
        assert (order.n_left, order.missing()) == (2, [ROWS[1], ROWS[3]])
    assert [answer["text"] for answer in json_lines(out.read_bytes())] == ["one"]
    with early.open("a") as file:
        file.write('{"row": 4, "ans')  # killed here
    with Answers(out) as answers:
        order = InOrder(answers, ROWS[answers.check(ROWS[:4]) : 4])
        assert order.missing() == [ROWS[1], ROWS[3]]
        order.add(ROWS[3], {"text": "four"})
        order.add(ROWS[1], {"text": "two"})
        assert order.n_left == 0
    assert [a["text"] for a in json_lines(out.read_bytes())] == ["one", "two", "three", "four"]
    assert not early.exists()


@pytest.mark.parametrize("line", ["my diary", "[]", '{"row": 2, "answer": {"id": 9}}'])
def test_early_answers_to_something_else_are_left_alone(tmp_path: Path, line: str) -> None:
    (tmp_path / "out.early").write_text(f"{line}\n")
    with Answers(tmp_path / "out") as answers, pytest.raises(Refused) as caught:
        InOrder(answers, ROWS[:4])
    assert "out.early, line 1: is no answer" in caught.value.message
    assert (tmp_path / "out.early").read_text() == f"{line}\n"


# ---- services that come and go -------------------------------------------------------------------


class Board:
    """Stands in for a Client. ``on_read`` runs before each answer and may raise."""

    def __init__(self, name: str) -> None:
        self.address = name
        self.on_read: Callable[[object], None] = lambda _: None
        self.is_gone = False
        self.jobs: dict[str, dict[str, Any]] = {}  # by their key
        self.cancelled: list[str] = []
        self.read: list[str] = []
        self.asked_when_gone = threading.Event()

    def _answer(self) -> None:
        if self.is_gone:
            self.asked_when_gone.set()
            raise NotRunning("NOT_RUNNING", f"nobody listens on {self.address}")

    def status(self) -> Any:
        self._answer()
        return SimpleNamespace(state="serving", detail="", model=SimpleNamespace(name="m"))

    def submit(self, prompt: Any, *, idempotency_key: str, **_: Any) -> Any:
        self._answer()
        existing = idempotency_key in self.jobs
        job = self.jobs.setdefault(
            idempotency_key, {"id": idempotency_key, "state": "queued", "prompt": prompt}
        )
        state = SimpleNamespace(id=job["id"], state=job["state"])
        return SimpleNamespace(job=state, existing=existing)

    def resume(self, job_id: str) -> Any:
        self._answer()
        prompt = self.jobs[job_id]["prompt"]
        self.on_read(prompt)
        self._answer()
        self.read.append(prompt)
        usage = dict.fromkeys(
            ("prompt_tokens", "completion_tokens", "cached_prompt_tokens", "reasoning_tokens"), 1
        )
        result = SimpleNamespace(finish_reason="stop", **usage)
        return SimpleNamespace(events=lambda: [TextDelta(f"to {prompt}", 1)], result=result)

    def cancel(self, job_id: str) -> None:
        self._answer()
        self.jobs[job_id]["state"] = "cancelled"
        self.cancelled.append(job_id)


def _answer_all(out: Path, boards: Sequence[Board]) -> list[dict[str, Any]]:
    with Answers(out) as answers:
        clients: Any = list(boards)
        _Batch(InOrder(answers, ROWS), len(ROWS), as_json=False).run(clients, 4, "batch")
    return json_lines(out.read_bytes())


def _expected() -> list[tuple[int, str]]:
    return [(row.number, f"to question {row.number}") for row in ROWS]


def test_the_rows_of_a_service_that_is_killed_go_to_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dying, other = Board("/dying"), Board("/other")

    def die(_: object) -> None:
        dying.is_gone = True

    def answer_behind_its_end(_: object) -> None:  # so that it has rows when it dies
        dying.asked_when_gone.wait()

    dying.on_read, other.on_read = die, answer_behind_its_end
    got = _answer_all(tmp_path / "out", [dying, other])
    assert [(answer["id"], answer["text"]) for answer in got] == _expected()
    assert dying.read == []
    assert len(other.read) == len(ROWS)
    assert "/dying: nobody listens on /dying; waiting for it" in capsys.readouterr().err


def test_a_service_that_is_back_takes_part_again_and_computes_nothing_of_the_others(
    tmp_path: Path,
) -> None:
    returning, other = Board("/returning"), Board("/other")
    took_part = threading.Event()

    def read_once_dead(_: object) -> None:
        if not returning.asked_when_gone.is_set():
            returning.is_gone = True
        else:
            took_part.set()

    def let_the_first_return(_: object) -> None:
        returning.asked_when_gone.wait()
        if other.read:  # it has the rows of the dead one, so those are not the dead one's any more
            returning.is_gone = False
        if len(other.read) == 8:
            took_part.wait()

    returning.on_read, other.on_read = read_once_dead, let_the_first_return
    got = _answer_all(tmp_path / "out", [returning, other])
    assert [(answer["id"], answer["text"]) for answer in got] == _expected()
    assert returning.read
    assert len(returning.read) + len(other.read) == len(ROWS)
    assert all(returning.jobs[key]["prompt"] in other.read for key in returning.cancelled)


def test_a_row_comes_back_to_a_service_that_had_to_cancel_it(tmp_path: Path) -> None:
    board = Board("/board")
    row = ROWS[0]
    first = board.submit(row.prompt, idempotency_key="probe")
    assert not first.existing
    _answer_all(tmp_path / "one", [board])
    for job in board.jobs.values():
        job["state"] = "cancelled"
    n_jobs = len(board.jobs)
    got = _answer_all(tmp_path / "two", [board])
    assert [(answer["id"], answer["text"]) for answer in got] == _expected()
    assert len(board.jobs) == n_jobs + len(ROWS)


def test_a_service_without_the_model_takes_no_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poor, other = Board("/poor"), Board("/other")

    def refuse(*_: object, **__: object) -> None:
        raise Refused("MODEL_NOT_FOUND", "no such model")

    poor.submit = refuse  # type: ignore[method-assign]
    got = _answer_all(tmp_path / "out", [poor, other])
    assert [(answer["id"], answer["text"]) for answer in got] == _expected()
    assert len(other.read) == len(ROWS)
    with pytest.raises(Refused, match="no such model"):
        _answer_all(tmp_path / "out2", [poor])


# ---- the command ---------------------------------------------------------------------------------


@pytest.fixture
def services() -> Iterator[list[RunningService]]:
    with ExitStack() as stack:
        running = [stack.enter_context(running_service()) for _ in range(2)]
        for one in running:
            one.engine.rule = saying("An answer.")
        yield running


def test_the_command_shares_the_rows_of_a_file_and_keeps_their_order(
    services: list[RunningService], tmp_path: Path
) -> None:
    n_rows = 20
    lines = [json.dumps({"prompt": f"question {i}", "id": f"r{i}"}) for i in range(n_rows)]
    (tmp_path / "in").write_text("\n".join(lines) + "\n")
    where = Path(",".join(str(one.path) for one in services))
    words = ("batch", "--parallel", "2", str(tmp_path / "in"), str(tmp_path / "out"))
    done = run(where, *words)
    assert done.returncode == 0, done.stderr
    answers = json_lines((tmp_path / "out").read_bytes())
    assert [answer["id"] for answer in answers] == [f"r{i}" for i in range(n_rows)]
    assert {answer["text"] for answer in answers} == {"An answer."}
    assert sum(len(prompts(one)) for one in services) == n_rows
    assert (
        run(where, *words).stderr == b"llamactl: 20 rows: all have their answer, 20 had it before\n"
    )
