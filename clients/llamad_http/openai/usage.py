"""The object ``usage`` of an answer."""

from collections.abc import Sequence
from typing import Any

from llamad_http.completion import Answer


def usage_of(answers: Sequence[Answer], *, texts_of_a_prompt: int) -> dict[str, Any]:
    """Return the tokens of a request; a prompt counts once, however many texts begin with it."""
    ends = [answer.end for answer in answers]
    first = ends[::texts_of_a_prompt]
    prompt = sum(end.prompt_tokens for end in first)
    completion = sum(end.completion_tokens for end in ends)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(end.cached_prompt_tokens for end in first)},
        "completion_tokens_details": {
            "reasoning_tokens": sum(end.reasoning_tokens for end in ends),
        },
    }
