"""Guessing against never and always guessing, in simulated time: never much worse than either.

The texts are as predictable as a test wants: a token follows from those before it by a rule that
the draft knows, but for a share of the tokens, which it cannot know.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from llamad.schedule.balance import FIRST_REST, LAST_REST, MOST_LOST, Balance
from unit.schedule.fakes import Bench, History, Rule, asynchronous, events_of, request
from unit.schedule.test_draft import FakeDraft, counts_of, simulate, with_draft

N_TOKENS = 2000
N_PROMPT = 32
MOST_MORE = 1.05  # times the better of always and never
# Likewise: the n-grams of each sequence are tried for themselves, and so is the draft for each
# number of sequences; a wrong guess costs all of them time.
MOST_MORE_TOGETHER = 1.07


def letter(*what: object) -> int:
    """Return one of 90 letters."""
    return 35 + zlib.crc32(repr(what).encode()) % 90


def known(history: History, seed: int, draw: int) -> int:
    """Return what the draft expects: it follows from the last eight tokens."""
    return letter(history[-8:])


def predictable(share: Callable[[int], float], seed: int = 0) -> Rule:
    """Return a rule that is the draft's for a share of the tokens, by the length of the text."""

    def rule(history: History, _: int, draw: int) -> int:
        chance = zlib.crc32(repr((seed, len(history), history[-3:])).encode()) / 2**32
        return known(history, 0, 0) if chance < share(draw) else letter("else", len(history), seed)

    return rule


def repeating(share: float, period: int = 50) -> Rule:
    """Return a rule that says what it said a period ago, for a share of the tokens."""

    def rule(history: History, _: int, draw: int) -> int:
        chance = zlib.crc32(repr(("again", draw)).encode()) / 2**32
        return history[-period] if draw >= period and chance < share else letter("new", draw)

    return rule


@dataclass(frozen=True)
class Machine:
    """What steps cost, in seconds: of the model by their rows, and of the draft."""

    step: float
    row: float
    draft_step: float
    draft_row: float = 0.0
    wide: float = 0.0  # more for each row beyond four, as where a kernel takes four at a time

    def simulate(self, bench: Bench) -> None:
        simulate(bench, step=self.step, row=self.row, draft_step=self.draft_step)
        bench.simulate(
            seconds_per_step=self.step,
            seconds_per_row=self.row,
            tick_seconds=1e9,
            more_seconds=lambda n_rows: self.wide * max(0, n_rows - 4),
        )
        if bench.model.draft is not None:
            bench.model.draft.row_seconds = self.draft_row


def way(monkeypatch: pytest.MonkeyPatch, rests: bool | None) -> None:
    """Let guessing rest always or never; None: as it is measured."""
    monkeypatch.undo()
    if rests is not None:
        monkeypatch.setattr("llamad.schedule.balance.Balance.rests", rests)
        monkeypatch.setattr(
            "llamad.schedule.speculation.Speculation.wants_plain", lambda self, n_decoding: False
        )


MACHINES = {
    "cheap": Machine(0.1, 0.002, 0.01, 0.0005),
    "dear": Machine(0.1, 0.002, 0.05, 0.002),
    "dearer than the model": Machine(0.1, 0.002, 0.3, 0.01),
    "dear rows": Machine(0.02, 0.05, 0.005, 0.002),
    "wide": Machine(0.1, 0.001, 0.01, 0.001, wide=0.1),
}


def seconds_of(rule: Rule, machine: Machine, *, drafted: bool = True, together: int = 1) -> float:
    """Return how long an answer takes, or several at a time."""
    seconds = 0.0

    @asynchronous
    async def run() -> None:
        nonlocal seconds
        draft = FakeDraft(known, n_ctx=4096, n_batch=512, n_blocks=1024) if drafted else None
        bench = with_draft(draft, n_ctx=4096, kv_blocks_total=1024, n_sequences=4, n_batch=512)
        bench.engine.rule = rule
        machine.simulate(bench)
        for i in range(together):  # before the first step: so all begin together, always
            wish = request(f"{i}" * N_PROMPT, max_tokens=N_TOKENS, loop_guard=False)
            job = await bench.scheduler.submit(wish)
        async with bench.running():
            began = bench.clock.now()
            await events_of(job)
            await bench.scheduler.drain(1e9)
            seconds = bench.clock.now() - began

    run()
    return seconds


def best_and_measured(
    monkeypatch: pytest.MonkeyPatch, rule: Rule, machine: Machine, **how: Any
) -> tuple[float, float]:
    """Return the seconds of the better of always and never guessing, and those of ours."""
    seconds = []
    for rests in (True, False, None):
        way(monkeypatch, rests)
        seconds.append(seconds_of(rule, machine, **how))
    never, always, measured = seconds
    print(f"never {never:.1f} s, always {always:.1f} s, measured {measured:.1f} s")
    return min(never, always), measured


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("machine", MACHINES)
def test_a_draft_is_never_much_worse_than_always_and_never(
    machine: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = predictable(lambda draw: share)
    best, measured = best_and_measured(monkeypatch, rule, MACHINES[machine])
    assert measured <= MOST_MORE * best


@pytest.mark.parametrize("share", [0.0, 0.95])
@pytest.mark.parametrize("machine", ["cheap", "dear", "wide"])
def test_so_is_it_for_several_sequences_together(
    machine: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = predictable(lambda draw: share)
    best, measured = best_and_measured(monkeypatch, rule, MACHINES[machine], together=3)
    assert measured <= MOST_MORE_TOGETHER * best


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("machine", ["cheap", "dear rows", "wide"])
def test_n_grams_are_never_much_worse_than_always_and_never(
    machine: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = repeating(share)
    best, measured = best_and_measured(monkeypatch, rule, MACHINES[machine], drafted=False)
    assert measured <= MOST_MORE * best


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.95), (0.95, 0.0)])
def test_a_text_that_changes_in_the_middle_is_followed(
    before: float, after: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe comes before as many tokens again have been made; a stop at once."""
    machine, change = MACHINES["cheap"], 450
    each = {}
    for share in (before, after):
        rule = predictable(lambda draw: share)
        each[share] = best_and_measured(monkeypatch, rule, machine)[0] / N_TOKENS
    rule = predictable(lambda draw: before if draw < change else after)
    way(monkeypatch, None)
    measured = seconds_of(rule, machine)
    heard = change if after < before else 2 * change + FIRST_REST
    assert measured <= MOST_MORE * (heard * each[before] + (N_TOKENS - heard) * each[after])


# ---- the balance ---------------------------------------------------------------------------------


def test_a_balance_rests_longer_each_time_until_a_probe_has_paid() -> None:
    balance = Balance()
    rests = []
    for _ in range(7):
        while not balance.rests:
            balance.charge(1.0)
        rests.append(0)
        while balance.rests:
            balance.pass_step()
            rests[-1] += 1
    assert rests == [FIRST_REST * 2**i for i in range(5)] + [LAST_REST, LAST_REST]
    balance.charge(-MOST_LOST)
    for _ in range(int(MOST_LOST)):
        assert not balance.rests
        balance.charge(1.0)
    assert balance.rests
    for _ in range(FIRST_REST):
        balance.pass_step()
    assert not balance.rests


def test_one_round_alone_never_ends_a_probe_and_what_was_gained_before_covers_no_loss() -> None:
    balance = Balance()
    balance.charge(10 * MOST_LOST)
    assert not balance.rests
    balance.charge(0.0)
    assert balance.rests
    balance = Balance()
    balance.charge(-1000.0)
    balance.charge(MOST_LOST)
    assert balance.rests


@asynchronous
async def test_a_draft_s_own_seconds_are_its_owner_s() -> None:
    bench = with_draft(FakeDraft())
    simulate(bench, step=0.1, row=0.001, draft_step=0.02)
    charged = []
    charge = bench.scheduler._shares.charge

    def note(rows: Mapping[str, int], seconds: float, now: float) -> None:
        charged.append((set(rows), seconds))
        charge(rows, seconds, now)

    bench.scheduler._shares.charge = note  # type: ignore[method-assign]
    began = bench.clock.now()
    async with bench.running():
        wish = request("x", max_tokens=60, on_behalf_of="anna")
        await events_of(await bench.scheduler.submit(wish))
    assert counts_of(bench).guessed > 20
    assert all(owners == {"anna"} for owners, _ in charged)
    assert sum(seconds for _, seconds in charged) == pytest.approx(bench.clock.now() - began)
