"""What of a conversation stays when it outgrows the context: the longest end that fits."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamad.schedule.conversation import Fitted, Message, answer_room, fit_conversation

MARKERS = 3  # tokens around each message
BEGINNING = 2  # tokens of every conversation


def message(role: str, n_tokens: int) -> Message:
    return {"role": role, "content": "x" * n_tokens}


def tokens_of(messages: Sequence[Message]) -> list[int]:
    """Return a token for each character, and those of the markers."""
    return [0] * (BEGINNING + sum(MARKERS + len(m["content"]) for m in messages))


class Renderer:
    """Counts how often a conversation is rendered."""

    def __init__(self) -> None:
        self.n_calls = 0

    def __call__(self, messages: Sequence[Message]) -> list[int]:
        self.n_calls += 1
        return tokens_of(messages)


def fit(
    messages: Sequence[Message], context: int, room: int = 0, render: Renderer | None = None
) -> Fitted:
    return fit_conversation(
        messages,
        render=render or Renderer(),
        count=len,
        context_tokens=context,
        room_tokens=room,
    )


def turns(n: int, n_tokens: int = 10) -> list[Message]:
    """Return n turns of a question and an answer, and a last question."""
    pairs = [message(role, n_tokens) for _ in range(n) for role in ("user", "assistant")]
    return [*pairs, message("user", n_tokens)]


messages_of_users = st.lists(
    st.builds(
        message,
        st.sampled_from(["user", "user", "assistant", "tool", "system"]),
        st.integers(0, 60),
    ),
    min_size=1,
    max_size=40,
)


@given(messages_of_users, st.integers(1, 1500), st.integers(0, 200))
def test_system_and_the_longest_end_that_fits_stay(
    messages: list[Message], context: int, room: int
) -> None:
    result = fit(messages, context, room)
    n_system = next((i for i, m in enumerate(messages) if m["role"] != "system"), len(messages))
    system, rest = messages[:n_system], messages[n_system:]
    kept = rest[result.n_dropped :]
    assert list(result.tokens) == tokens_of([*system, *kept])
    ends = [rest[i:] for i in range(len(rest)) if i == 0 or rest[i]["role"] == "user"] or [rest]
    assert kept in ends
    assert result.n_dropped == 0 or kept[0]["role"] == "user"
    fitting = [end for end in ends if len(tokens_of([*system, *end])) <= context - room]
    assert len(kept) == len(fitting[0] if fitting else ends[-1])


@given(st.integers(1, 500), st.integers(1, 40), st.integers(20, 20_000))
def test_few_renders_find_it(n_turns: int, n_tokens: int, context: int) -> None:
    render = Renderer()
    fit(turns(n_turns, n_tokens), context, render=render)
    assert render.n_calls <= 5


def test_texts_of_ordinary_length_take_three_renders() -> None:
    render = Renderer()
    result = fit(turns(200, 100), 4096, 512, render)
    assert render.n_calls == 3
    assert result.n_dropped == 368
    assert len(result.tokens) == BEGINNING + 33 * 103


def test_a_conversation_that_fits_is_rendered_once() -> None:
    render = Renderer()
    assert fit(turns(2), 67, 0, render) == Fitted(tokens_of(turns(2)), 0)
    assert render.n_calls == 1


def test_a_call_of_a_tool_goes_with_its_result() -> None:
    first = [message(role, 10) for role in ("user", "assistant", "tool", "assistant")]
    result = fit([message("system", 5), *first, message("user", 10)], 50)
    assert (result.n_dropped, len(result.tokens)) == (4, BEGINNING + 8 + 13)


def test_what_follows_the_newest_question_stays_with_it() -> None:
    newest = [message(role, 10) for role in ("user", "assistant", "tool")]
    result = fit([*turns(3)[:-1], *newest], 45)
    assert (result.n_dropped, len(result.tokens)) == (6, BEGINNING + 39)


def test_a_greeting_in_front_of_the_first_question_is_dropped_first() -> None:
    assert fit([message("assistant", 30), *turns(1)], 50).n_dropped == 1


def test_a_newest_question_that_leaves_no_room_may_fill_the_context() -> None:
    result = fit([*turns(2)[:-1], message("user", 40)], 45, room=10)
    assert (result.n_dropped, len(result.tokens)) == (4, 45)


def test_one_that_does_not_even_fit_is_returned_as_long_as_it_is() -> None:
    assert len(fit([*turns(2)[:-1], message("user", 60)], 45).tokens) == 65


@pytest.mark.parametrize(
    ("context", "max_tokens", "room"), [(4096, None, 512), (4096, 100, 100), (4096, 4000, 512)]
)
def test_an_answer_gets_what_it_asks_for_up_to_an_eighth_of_the_context(
    context: int, max_tokens: int | None, room: int
) -> None:
    assert answer_room(context, max_tokens) == room
