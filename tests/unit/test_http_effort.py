"""How hard a model thinks, in the words of the APIs of llamad-http."""

import pytest

from llamad_api.v1 import llamad_pb2 as pb
from llamad_client.request import Options, chat_request
from llamad_http.fields import Fields
from llamad_http.ollama.options import set_thinking
from llamad_http.openai.chat import read_conversation
from llamad_http.openai.responses import read_conversation as read_response

WORDS = [
    ("none", {"thinking": False}),
    ("minimal", {"thinking": True, "thinking_effort": "low"}),
    ("low", {"thinking": True, "thinking_effort": "low"}),
    ("medium", {"thinking": True, "thinking_effort": "medium"}),
    ("high", {"thinking": True, "thinking_effort": "high"}),
    ("max", {"thinking": True, "thinking_effort": "high"}),
    ("a word of tomorrow", {"thinking": True}),
]


def thinking_in(options: Options) -> dict[str, object]:
    return {name: value for name, value in options.items() if name.startswith("thinking")}


@pytest.mark.parametrize(("word", "wanted"), WORDS)
def test_an_effort_is_told_to_the_service(word: str, wanted: dict[str, object]) -> None:
    messages = [{"role": "user", "content": "hi"}]
    _, chat = read_conversation(Fields({"messages": messages, "reasoning_effort": word}))
    response = read_response(Fields({"input": "hi", "reasoning": {"effort": word}})).options
    ollama: Options = {}
    set_thinking(ollama, Fields({"think": word}))
    for options in (chat, response, ollama):
        assert thinking_in(options) == wanted


def test_the_client_sends_it() -> None:
    request = chat_request([], {"thinking": True, "thinking_effort": "low"})
    assert request.options.thinking == pb.Thinking(enabled=True, effort=pb.EFFORT_LOW)
