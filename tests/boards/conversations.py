"""Conversations over HTTP, as an OpenAI client has them: each request streams and is told apart.

Owns what became of a request: answered, cut behind its beginning, or lost before it.
"""

import http.client
import json
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

N_AT_A_TIME = 6
_FACTS = "The house has a kitchen, a cellar, a garden with two sheds, and a heating of 1987. "


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request. text: of the answer, as far as it came."""

    board: str
    text: str
    error: str  # empty: answered
    began: bool
    prompt_tokens: int = 0
    cached_tokens: int = 0


def ask(port: int, key: str, messages: list[dict[str, str]]) -> Outcome:
    """Ask through the proxy on this machine."""
    body = {
        "model": "any",
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 12,
        "temperature": 0,
    }
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=180, context=context)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    board, text, error, began, ended = "", "", "", False, False
    usage: dict[str, Any] = {}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        board = response.headers.get("Llamad-Board", "")
        if response.status != http.HTTPStatus.OK:
            said = response.read(500).decode(errors="replace")
            return Outcome(board, "", f"{response.status} {said}", began=False)
        began = True
        while line := response.readline():
            if not line.startswith(b"data: "):
                continue
            if line.strip() == b"data: [DONE]":
                ended = True
                break
            chunk: dict[str, Any] = json.loads(line[6:])
            if "error" in chunk:
                error = f"error event: {chunk['error']}"
                break
            usage = chunk.get("usage") or usage
            text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
        if not ended and not error:
            error = "the stream ended without its end"
    except (OSError, http.client.HTTPException) as raised:
        error = f"{type(raised).__name__}: {raised}"
    finally:
        connection.close()
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens", 0)
    return Outcome(board, text, error, began, usage.get("prompt_tokens", 0), cached)


def converse(
    port: int,
    key: str,
    *,
    name: str,
    n_conversations: int,
    n_turns: int,
    on_end: Callable[[int], object] = lambda _: None,
) -> list[Outcome]:
    """Hold conversations beside each other; ``on_end`` gets how many requests have ended."""
    outcomes: list[Outcome] = []
    lock = threading.Lock()

    def hold(number: int) -> None:
        system = f"{name} {number}. " + _FACTS * 4
        messages = [{"role": "system", "content": system}]
        for turn in range(n_turns):
            messages.append({"role": "user", "content": f"Tell me of room {turn}."})
            outcome = ask(port, key, messages)
            messages.append({"role": "assistant", "content": outcome.text or "I do not know."})
            with lock:
                outcomes.append(outcome)
                n_ended = len(outcomes)
            on_end(n_ended)

    with ThreadPoolExecutor(N_AT_A_TIME) as pool:
        for done in [pool.submit(hold, number) for number in range(n_conversations)]:
            done.result()
    return outcomes


def hit_rate(outcomes: list[Outcome]) -> float:
    """Return the share of prompt tokens that were found in a prefix cache."""
    tokens = sum(outcome.prompt_tokens for outcome in outcomes)
    return sum(outcome.cached_tokens for outcome in outcomes) / max(1, tokens)
