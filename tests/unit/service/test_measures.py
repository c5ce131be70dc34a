"""What is counted of jobs, steps and failed calls."""

from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.request import Priority
from llamad.service.measures import MOST_REASONS, OTHER_REASONS, Histogram, Measures
from unit.schedule.fakes import Bench, asynchronous, error_of, finish_of, request, saying


def test_a_value_belongs_to_the_first_bound_that_it_does_not_exceed() -> None:
    histogram = Histogram((1, 2))
    for value in (0, 1, 1.5, 2, 3):
        histogram.observe(value)
    assert (histogram.counts, histogram.sum) == ([2, 2, 1], 7.5)


@asynchronous
async def test_jobs_are_counted_by_class_and_end_and_steps_by_rows() -> None:
    bench = Bench()
    bench.engine.rule = saying("four")
    async with bench.running():
        await finish_of(await bench.scheduler.submit(request(priority=Priority.BATCH)))
        await finish_of(await bench.scheduler.submit(request(max_tokens=1)))
        bench.engine.errors = [LlamadError(ErrorKind.CORRUPT, "MODEL_NOT_FINITE", "no number")]
        await error_of(await bench.scheduler.submit(request()))
    measures = bench.measures
    assert measures.ends == {
        (Priority.BATCH, "stop"): 1,
        (Priority.NORMAL, "length"): 1,
        (Priority.NORMAL, "failed"): 1,
    }
    assert measures.job_errors == {"MODEL_NOT_FINITE": 1}
    assert sum(measures.first_token_seconds[Priority.BATCH].counts) == 1
    assert sum(measures.first_token_seconds[Priority.NORMAL].counts) == 1  # one had no token
    assert sum(measures.output_token_seconds.counts) == 1  # one had no second
    assert sum(measures.wait_seconds[Priority.NORMAL].counts) == 1  # of those that were computed
    assert sum(measures.step_rows.counts) == len(bench.engine.steps)
    assert measures.step_rows.sum == sum(map(sum, bench.engine.steps))


def test_a_copy_stays_as_it_is() -> None:
    measures = Measures()
    before = measures.copy()
    measures.on_step(3, 0.5)
    assert (before.step_rows.sum, measures.step_rows.sum) == (0, 3)


def test_reasons_of_errors_are_bounded() -> None:
    measures = Measures()
    for i in range(MOST_REASONS + 5):
        measures.on_call_failed(f"REASON_{i}")
    measures.on_call_failed("REASON_0")
    assert len(measures.call_errors) == MOST_REASONS + 1
    assert (measures.call_errors[OTHER_REASONS], measures.call_errors["REASON_0"]) == (5, 2)
