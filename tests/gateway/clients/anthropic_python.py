"""anthropic: a message whole and streamed, tokens, a tool, a schema, errors, time, leaving."""
# mypy: ignore-errors
# ruff: noqa: PT017 - no pytest in these environments

import json
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
properties = {"on": {"type": "boolean"}}
schema = {"type": "object", "properties": properties, "required": ["on"]}
schema["additionalProperties"] = False
form = {"output_config": {"format": {"type": "json_schema", "schema": schema}}, "temperature": 0}
told = client.messages.create(**{**asked, "max_tokens": 400, "extra_body": form})
assert json.loads(told.content[0].text)["on"] in (True, False), told
long = {**asked, "max_tokens": 900}
try:
    client.with_options(timeout=0.05, max_retries=0).messages.create(**long)
except anthropic.APITimeoutError:
    pass
else:
    raise AssertionError("a whole answer came within 50 ms")
with client.messages.stream(**long) as left:
    next(iter(left.text_stream))
