"""Speeds of a completion, as llama-server's ``timings`` have them; milliseconds."""

from typing import Any

from llamad_client import Result


def timings(result: Result) -> dict[str, Any]:
    """Return the object ``timings`` of an answer."""
    read = result.prompt_tokens - result.cached_prompt_tokens
    prompt_ms = result.timings.prefill_seconds * 1e3
    predicted = result.completion_tokens
    # decode_seconds begins after the first token, whose time is the prompt's last step
    predicted_ms = result.timings.decode_seconds * 1e3
    return {
        "cache_n": result.cached_prompt_tokens,
        "prompt_n": read,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": _ratio(prompt_ms, read),
        "prompt_per_second": _ratio(1e3 * read, prompt_ms),
        "predicted_n": predicted,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": _ratio(predicted_ms, predicted - 1),
        "predicted_per_second": _ratio(1e3 * (predicted - 1), predicted_ms),
    }


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else 0.0
