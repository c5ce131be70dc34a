"""langchain-openai and langchain-ollama: chats, tools, schemas, vectors, errors, time, leaving."""
# mypy: ignore-errors

import os

import httpx
import openai
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

url, model = os.environ["GATEWAY"], os.environ["MODEL"]
chats = [
    ChatOpenAI(model=model, base_url=url + "/v1", api_key="none", temperature=0, max_tokens=12),
    ChatOllama(
        model=model, base_url=url, temperature=0, num_predict=12, validate_model_on_init=True
    ),
]
texts = set()
for chat in chats:
    answer = chat.invoke([("system", "Be brief."), ("human", "Say hello.")])
    texts.add(answer.content)
    pieces = chat.stream([("system", "Be brief."), ("human", "Say hello.")])
    texts.add("".join(piece.content for piece in pieces))
    assert answer.usage_metadata["output_tokens"] > 1
assert len(texts) == 1, texts
schema = {
    "title": "lamp",
    "description": "Switch it.",
    "type": "object",
    "properties": {"on": {"type": "boolean"}},
    "required": ["on"],
    "additionalProperties": False,
}
of_openai = {"model": model, "base_url": url + "/v1", "api_key": "none", "max_retries": 0}
of_ollama = {"model": model, "base_url": url}
for chat in (
    ChatOpenAI(**of_openai, max_tokens=200, temperature=0),
    ChatOllama(**of_ollama, num_predict=60, temperature=0),
):
    told = chat.with_structured_output(schema, method="json_schema").invoke("Is it on?")
    assert told["on"] in (True, False), told
    left = chat.stream("Count.")
    next(left)
    left.close()
forced = ChatOpenAI(**of_openai, max_tokens=200).bind_tools([schema], tool_choice="lamp")
assert [call["name"] for call in forced.invoke("Light!").tool_calls] == ["lamp"]
offered = ChatOllama(**of_ollama, num_predict=12).bind_tools([schema]).invoke("Light!")
assert offered.content or offered.tool_calls, offered
vectors = os.environ["VECTORS"]
one = OpenAIEmbeddings(
    model="vectors", base_url=vectors + "/v1", api_key="none", check_embedding_ctx_length=False
)
other = OllamaEmbeddings(model="vectors", base_url=vectors)
assert one.embed_query("a")[:3] == other.embed_query("a")[:3]
for wrong, error in (
    (ChatOpenAI(**of_openai, temperature=-1), openai.BadRequestError),
    (ChatOpenAI(**of_openai, timeout=0.05), openai.APITimeoutError),
    (ChatOllama(**of_ollama, client_kwargs={"timeout": 0.05}), httpx.TimeoutException),
):
    try:
        wrong.invoke("Count.")
    except error:
        pass
    else:
        raise AssertionError(f"no {error.__name__}")
