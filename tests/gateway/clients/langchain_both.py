"""langchain-openai and langchain-ollama: invoke, stream, and a chain of messages."""
# mypy: ignore-errors

import os

from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI

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
