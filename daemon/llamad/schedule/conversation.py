"""A conversation that has outgrown its context: which of its oldest messages are left out.

Owns the rule. What stays is the leading system messages and the longest end of the conversation
that begins with a message of the user and leaves room for an answer: so a turn goes as a whole, a
call of a tool with its result. The newest message of the user, and what follows it, always stays:
where the room cannot be had, it may fill the context.

Rendering a conversation costs milliseconds. So a cut is chosen by the tokens of each message, and
rendered with its neighbours only, as a rule three times in all. Pure but for the two functions
that it is given.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

ROOM_SHARE = 8  # of the context, that an answer gets at least

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fitted:
    """The prompt of a conversation: its tokens, and how many messages it leaves out."""

    tokens: Sequence[int]
    n_dropped: int


def answer_room(context_tokens: int, max_tokens: int | None) -> int:
    """Return the tokens that an answer gets at least: those asked for, up to an eighth of all."""
    share = context_tokens // ROOM_SHARE
    return share if max_tokens is None else min(max_tokens, share)


def fit_conversation(
    messages: Sequence[Message],
    *,
    render: Callable[[Sequence[Message]], Sequence[int]],
    count: Callable[[str], int],
    context_tokens: int,
    room_tokens: int,
) -> Fitted:
    """Return the tokens of as much of a conversation as the context holds, beside an answer.

    render: the tokens of messages, as the model is to read them; count: about the tokens of one
    message's text. The result is longer than the context when not even the newest message of the
    user fits.
    """
    everything = Fitted(render(messages), 0)
    target = context_tokens - room_tokens
    starts = _starts(messages)
    if len(everything.tokens) <= target or len(starts) == 1:
        return everything
    n_system = starts[0]
    found: dict[int, Fitted] = {0: everything}  # by cut, an index of starts

    def fits(cut: int) -> bool:
        if cut not in found:
            kept = [*messages[:n_system], *messages[starts[cut] :]]
            found[cut] = Fitted(render(kept), starts[cut] - n_system)
        return len(found[cut].tokens) <= target

    n_tokens = len(everything.tokens)
    guess = _guess(messages, starts, n_tokens, n_tokens - target, count)
    last = len(starts) - 1
    if guess == last and not fits(last):
        return found[last]
    cut = _first_that_fits(fits, guess, last)
    fits(cut)  # so that it is rendered
    return found[cut]


def _starts(messages: Sequence[Message]) -> list[int]:
    """Return where what stays may begin: behind the leading system messages, then at each user."""
    roles = [message["role"] for message in messages]
    n_system = next((i for i, role in enumerate(roles) if role != "system"), len(roles))
    users = [i for i, role in enumerate(roles) if role == "user" and i > n_system]
    return [n_system, *users]


def _guess(
    messages: Sequence[Message],
    starts: Sequence[int],
    n_tokens: int,
    n_excess: int,
    count: Callable[[str], int],
) -> int:
    """Return the first cut that leaves out n_excess of n_tokens, by the texts of the messages.

    What is not text is taken to be the same around each message.
    """
    counts = [count(message["content"]) for message in messages]
    markers = max(0, n_tokens - sum(counts)) / len(messages)
    left_out = list(accumulate((n + markers for n in counts[starts[0] :]), initial=0.0))
    cuts = (cut for cut, start in enumerate(starts) if left_out[start - starts[0]] >= n_excess)
    return next(cuts, len(starts) - 1)


def _first_that_fits(fits: Callable[[int], bool], guess: int, last: int) -> int:
    """Return the first cut that fits, of 1 to last; last is taken to fit, and 0 not to.

    Cuts around the guess are tried at growing distances, then the middle of what is left.
    """
    low, high, step = 0, last, 1  # low does not fit, high does
    trial = min(guess, last - 1)
    while high - low > 1:
        if not low < trial < high:
            trial = (low + high) // 2
        if fits(trial):
            high, trial = trial, trial - step
        else:
            low, trial = trial, trial + step
        step *= 2
    return high
