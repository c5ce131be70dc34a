"""Which stored job goes on after a crash, and whose starts are counted."""

from types import SimpleNamespace
from typing import Any

from llamad.service.suspects import Suspects


def job(job_id: str, priority: int = 1) -> Any:
    return SimpleNamespace(id=job_id, record=SimpleNamespace(priority=priority))


def of(**starts: int) -> Suspects:
    suspects = Suspects()
    for job_id, number in starts.items():
        suspects.add(job_id, number)
    return suspects


def test_one_goes_on_at_a_time_and_whoever_is_none_always() -> None:
    suspects = of(a=1, b=1)
    assert [suspects.may_go_on(i) for i in ("new", "a", "b", "a")] == [True, True, False, True]
    assert suspects.on_trial == "a"
    assert suspects.remove("a")
    assert not suspects.remove("a")
    assert [suspects.may_go_on(i) for i in ("b", "a")] == [True, True]
    assert len(suspects) == 1


def test_the_most_fruitless_goes_first_then_the_most_urgent_then_the_oldest() -> None:
    suspects = of(made_a_token=0, oldest=1, twice=2, urgent=1)
    jobs = [job("made_a_token"), job("oldest"), job("twice"), job("urgent", 0), job("new")]
    order = [one.id for one in sorted(jobs, key=suspects.rank)]
    assert order == ["new", "twice", "urgent", "oldest", "made_a_token"]


def test_only_the_first_suspect_of_a_life_is_counted() -> None:
    suspects = of(a=1, b=2)
    assert (suspects.count("new"), suspects.count("a"), suspects.count("b")) == (1, 2, None)


def test_the_first_stored_token_is_told_once() -> None:
    suspects = of(a=1, b=1)
    assert suspects.may_go_on("a")
    assert [suspects.progressed(i) for i in ("b", "a", "a")] == [False, True, False]
    suspects.remove("a")
    assert suspects.may_go_on("b")
    assert suspects.progressed("b")
