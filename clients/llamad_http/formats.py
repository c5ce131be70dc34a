"""What an answer must look like, where several APIs say it alike: a schema or a grammar."""

from typing import Any

from llamad_http.fields import Fields, kind_of


def read_own_format(body: Fields) -> dict[str, Any] | None:
    """Return llama-server's fields ``json_schema`` and ``grammar``; None for none. HttpError."""
    if "json_schema" in body and "grammar" in body:
        raise body.wrong("grammar", "is given beside json_schema: the answer has one form")
    if "json_schema" in body:
        return schema_of(body, "json_schema")
    grammar = body.text("grammar")
    return {"grammar": grammar} if grammar else None


def schema_of(body: Fields, name: str) -> dict[str, Any]:
    """Return a field that is a JSON Schema as the client's option. Raises HttpError.

    Its objects are closed, as llama-server and Ollama have it.
    """
    schema = body.get(name)
    if not isinstance(schema, dict | bool):
        raise body.wrong(name, f"must be a JSON Schema, an object, not {kind_of(schema)}")
    return {"json_schema": schema, "closed_objects": True}
