"""OpenAI's options, and how many answers of a seed there are."""

from collections.abc import Iterator

from llamad_client.request import Options
from llamad_http.completion import MAX_TEXTS
from llamad_http.fields import Fields
from llamad_http.sampling import read_sampling


def read_options(body: Fields, *, may_be_none: bool = False) -> Options:
    """Return the options of a chat or a completion. Raises HttpError.

    may_be_none: an answer of no tokens may be asked for; that is no option.
    """
    for name in ("max_tokens", "max_completion_tokens"):
        if body.integer(name) == 0 and not may_be_none:
            raise body.wrong(name, "must be at least 1")
    return read_sampling(body, "max_tokens", "max_completion_tokens")


def read_n(body: Fields) -> int:
    """Return how many answers are wanted. Raises HttpError."""
    return body.integer("n", 1, MAX_TEXTS) or 1


def options_of_each(options: Options, n: int) -> Iterator[Options]:
    """Yield the options of n answers to one prompt: each has a seed of its own, if there is one."""
    for index in range(n):
        own = options.copy()
        if "seed" in own:
            own["seed"] = (own["seed"] + index) % (1 << 64)
        yield own
