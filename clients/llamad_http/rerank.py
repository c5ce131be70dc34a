"""``/rerank``: a question and documents, in the shapes of Jina, llama-server and TEI.

Jina's, which Open WebUI and LangChain send, has ``documents``; that of Hugging Face's Text
Embeddings Inference has ``texts`` and gets a list.
"""

from dataclasses import dataclass
from typing import Any

from llamad_client import Ranking
from llamad_http.fields import Fields


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """A checked body."""

    query: str
    documents: list[str]
    top_n: int | None
    truncate: bool
    with_text: bool  # in each result
    is_tei: bool


def read_rerank(body: Fields) -> RerankRequest:
    """Return what is asked. Raises HttpError."""
    is_tei = "texts" in body
    name = "texts" if is_tei else "documents"
    query = body.text("query")
    if not query:
        raise body.wrong("query", "must be a text that is not empty")
    documents = _documents(body, name)
    if not documents or not all(documents):
        raise body.wrong(name, "must be a list of texts that are not empty")
    flag = body.flag("return_text" if is_tei else "return_documents")
    truncate = body.flag("truncate")
    return RerankRequest(
        query, documents, body.integer("top_n", 1, 2**32 - 1), bool(truncate), bool(flag), is_tei
    )


def _documents(body: Fields, name: str) -> list[str]:
    """Return texts, which may be objects with one."""
    value = body.get(name)
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        return [entry.text("text") or "" for entry in body.objects(name)]
    return body.texts(name)


def rerank_body(asked: RerankRequest, ranking: Ranking, model: str) -> Any:
    """Return the answer, the best document first."""
    score = "score" if asked.is_tei else "relevance_score"
    results: list[dict[str, Any]] = []
    for found in ranking.results:
        result: dict[str, Any] = {"index": found.index, score: found.score}
        if asked.with_text:
            text = asked.documents[found.index]
            result |= {"text": text} if asked.is_tei else {"document": {"text": text}}
        results.append(result)
    if asked.is_tei:
        return results
    tokens = ranking.prompt_tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": model, "results": results, "usage": usage}
