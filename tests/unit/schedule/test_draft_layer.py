"""A layer of the model that guesses: which row it goes on from, and in whose blocks. No engine."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llamad.engine.drafting import DraftChunk, DraftRound, Guess
from llamad.engine.worker import Chunk
from llamad.schedule.blocks import BlockPool
from llamad.schedule.cost import StepCost
from llamad.schedule.draft import RoundLimits, Value
from llamad.schedule.draft_layer import DraftLayer
from llamad.schedule.generation import Generation
from llamad.schedule.guesser import Guesser
from llamad.schedule.sequence import Sequence

N_CTX = 96
LIMITS = RoundLimits(Value(0.0, 0.0, 0.0), 4, 1.0, StepCost())


class Layer:
    name = "layer"

    def run(self, chunks: Any) -> DraftRound:
        return DraftRound(tuple(Guess() for _ in chunks), ())


@dataclass(eq=False)
class Decoding:
    sequence: Sequence
    guesser: Guesser
    job: Any


class Bed:
    """Sequences that decode over a pool of blocks of 32 tokens."""

    def __init__(self, n_blocks: int = 8) -> None:
        self.pool = BlockPool(n_blocks, 32)
        self.model = SimpleNamespace(n_ctx=N_CTX, step_read_seconds=0.0)
        self.planner = DraftLayer(Layer(), cast(Any, self.model), self.pool)
        self.living: set[Generation] = set()

    def sequence(self, n_tokens: int, max_tokens: int = 50) -> Generation:
        sequence = Sequence(list(range(100, 100 + n_tokens)), n_tokens)
        self.pool.grow(sequence, n_tokens)
        sequence.n_computed = n_tokens
        record = SimpleNamespace(max_tokens=max_tokens, completion_tokens=1)
        job = SimpleNamespace(record=record)
        generation = cast(Generation, Decoding(sequence, Guesser(sequence.tokens), job))
        self.living.add(generation)
        return generation

    def step(self, *parts: tuple[Generation, int, tuple[int, ...]]) -> None:
        """Draw tokens of sequences in a step; int: guesses that the step checked."""
        step = []
        for generation, n_guesses, drawn in parts:
            n = len(generation.sequence.tokens)
            tokens = (generation.sequence.tokens[-1], *range(n_guesses))
            sampler = cast(Any, object()) if drawn else None
            blocks = tuple(generation.sequence.blocks)
            step.append((generation, Chunk(tokens, n - 1, blocks, sampler, n_guesses)))
        self.planner.note_step(step, [drawn for _, _, drawn in parts])
        for generation, _, drawn in parts:
            generation.sequence.tokens.extend(drawn)

    def chunks(self, *decoding: Generation) -> list[DraftChunk]:
        self.planner.keep(self.living)
        return self.planner.plan(decoding, LIMITS).chunks


def test_it_goes_on_from_the_row_of_the_last_token_that_was_drawn() -> None:
    bed = Bed()
    one, two, three = bed.sequence(5), bed.sequence(40), bed.sequence(7)
    bed.step((one, 3, (1, 2)), (three, 0, ()), (two, 1, (8,)))  # rows 0-3, none, 4-5
    first, second = bed.chunks(one, two, three)
    assert (first.tokens, first.position, first.row, first.most) == ((2,), 6, 1, 4)
    assert (second.tokens, second.position, second.row) == ((8,), 40, 4)
    assert first.blocks == tuple(one.sequence.blocks)


def test_rows_are_those_of_the_last_step_only() -> None:
    bed = Bed()
    one = bed.sequence(5)
    bed.step((one, 0, (1,)))
    assert len(bed.chunks(one)) == 1
    assert bed.chunks(one) == []  # the step between was stopped, and left no row


def test_a_sequence_whose_last_token_was_not_drawn_there_gets_no_guess() -> None:
    bed = Bed()
    one = bed.sequence(5)
    bed.step((one, 0, (1,)))
    one.sequence.tokens.append(9)
    assert bed.chunks(one) == []


def test_guesses_end_with_the_answer_the_context_and_the_blocks() -> None:
    bed = Bed()
    last, full = bed.sequence(5, max_tokens=3), bed.sequence(N_CTX - 2)
    bed.step((last, 0, (1,)), (full, 0, (1,)))
    assert [chunk.most for chunk in bed.chunks(last, full)] == [1, 2]


@pytest.mark.parametrize(("n_blocks", "most"), [(2, 1), (3, 4)])
def test_a_block_is_taken_only_where_others_have_one_too(n_blocks: int, most: int) -> None:
    bed = Bed(n_blocks=n_blocks)
    one = bed.sequence(31)
    bed.step((one, 0, (1,)))
    (chunk,) = bed.chunks(one)
    assert (chunk.position, chunk.most) == (31, most)
    assert bed.pool.n_free == 1
    assert len(chunk.blocks) == (1 if most == 1 else 2)


def test_it_rests_while_weights_stream_and_where_the_text_guesses_itself() -> None:
    bed = Bed()
    one = bed.sequence(5)
    one.sequence.tokens[:] = [1, 2, 3, 4, 1, 2]
    guesser = Guesser([1, 2, 3, 4, 1, 2, 3])
    bed.step((one, 0, (3,)))
    bed.model.step_read_seconds = 0.1
    assert bed.chunks(one) == []
    bed.model.step_read_seconds = 0.0
    one.guesser = guesser
    one.sequence.tokens.pop()
    bed.step((one, 0, (3,)))
    assert guesser.looked_up
    assert bed.chunks(one) == []
