"""anthropic: a message whole and streamed, a count of tokens, an offered tool, an error."""
# mypy: ignore-errors
# ruff: noqa: PT017 - no pytest in these environments

import os

import anthropic

client = anthropic.Anthropic(base_url=os.environ["GATEWAY"], api_key="none")
messages = [{"role": "user", "content": "Say hello."}]
asked = {
    "model": os.environ["MODEL"],
    "system": "Be brief.",
    "messages": messages,
    "max_tokens": 12,
    "extra_body": {"temperature": 0},
}
answer = client.messages.create(**asked)
with client.messages.stream(**asked) as stream:
    assert "".join(stream.text_stream) == answer.content[0].text
    last = stream.get_final_message()
assert (last.stop_reason, last.usage.output_tokens) == (
    answer.stop_reason,
    answer.usage.output_tokens,
)
counted = client.messages.count_tokens(
    model="any", system="Be brief.", messages=messages
).input_tokens
assert counted == answer.usage.input_tokens + answer.usage.cache_read_input_tokens
tool = {"name": "lamp", "input_schema": {"type": "object", "properties": {}}}
called = client.messages.create(**asked, tools=[tool], tool_choice={"type": "tool", "name": "lamp"})
assert called.stop_reason in ("tool_use", "max_tokens"), called
try:
    client.messages.create(**{**asked, "messages": [{"role": "boss", "content": "x"}]})
except anthropic.BadRequestError as error:
    assert "messages[0].role" in str(error)
else:
    raise AssertionError("a role that does not exist was taken")
