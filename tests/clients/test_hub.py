"""hf.co/USER/REPO[:QUANT]: what the name means, which file is taken, and answers that are wrong."""

import json

import pytest

from clients.http_server import HttpRequest, http_server, reply
from llamactl import hub
from llamactl.hub import Found, Reference
from llamad_client import Failed, Refused

REPOSITORY = Reference("Qwen", "Qwen3-4B-GGUF", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf.co/Qwen/Qwen3-4B-GGUF", REPOSITORY),
        ("huggingface.co/Qwen/Qwen3-4B-GGUF", REPOSITORY),
        ("https://huggingface.co/Qwen/Qwen3-4B-GGUF", REPOSITORY),
        ("https://HF.co/Qwen/Qwen3-4B-GGUF/", REPOSITORY),
        ("hf.co/a/b:q8_0", Reference("a", "b", "q8_0")),
        ("hf.co/a/b.c:x.gguf", Reference("a", "b.c", "x.gguf")),
        ("https://hf.co/a/b/resolve/main/c.gguf", None),
        ("./hf.co/a/b", None),
        ("http://example.org/a/b", None),
        ("demo", None),
    ],
)
def test_what_is_a_repository(text: str, expected: Reference | None) -> None:
    assert hub.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "hf.co", "hf.co/", "hf.co/foo", "HF.co/foo/", "https://huggingface.co/foo", "hf.co/a b/c",
        "hf.co/a/b/resolve/main/c.gguf", "www.hf.co/foo:Q4_0", "hf.co/a/b:",
    ],
)  # fmt: skip
def test_a_repository_in_another_form_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(Refused, match=r"the forms are hf.co/USER/REPO, ") as caught:
        hub.parse(text)
    assert caught.value.message.startswith(f"{text}: ")


@pytest.mark.parametrize(
    ("files", "quant", "expected"),
    [
        (["a-Q8_0.gguf", "a-Q4_0.gguf", "a-Q4_K_M.gguf"], "", ("a-Q4_K_M.gguf", "Q4_K_M")),
        (["a-Q8_0.gguf", "a.Q4_0.gguf"], "", ("a.Q4_0.gguf", "Q4_0")),
        (["a-q4_k_m.gguf", "a-q8_0.gguf"], "Q8_0", ("a-q8_0.gguf", "Q8_0")),
        (["dir/a-Q4_K_M.gguf", "README.md"], "q4_k_m", ("dir/a-Q4_K_M.gguf", "q4_k_m")),
        (["a-UD-Q4_K_XL.gguf", "b-f16.gguf"], "UD-Q4_K_XL", ("a-UD-Q4_K_XL.gguf", "UD-Q4_K_XL")),
        (["model.gguf", "mmproj-Q4_0.gguf"], "", ("model.gguf", "")),
        (["x.gguf", "y.gguf"], "y.gguf", ("y.gguf", "")),
        (["a-IQ4_0.gguf", "a-Q5_1.gguf"], "", ("a-Q5_1.gguf", "Q5_1")),
    ],
)
def test_which_file_is_taken(files: list[str], quant: str, expected: tuple[str, str]) -> None:
    assert hub.choose(files, Reference("u", "r", quant)) == expected


@pytest.mark.parametrize(
    ("files", "quant", "words"),
    [
        (["README.md", "model.safetensors"], "", "has no .gguf file"),
        (["a-Q4_0.gguf", "a-Q8_0.gguf"], "Q6_K", "no file of Q6_K; it has a-Q4_0.gguf, a-Q8_0"),
        (["x.gguf", "y.gguf"], "", "no usual quantization; it has x.gguf, y.gguf"),
        (["a-Q8_0-00001-of-00002.gguf", "a-Q8_0-00002-of-00002.gguf"], "Q8_0", "one of 2 parts"),
        (["a-Q8_0-00001-of-00002.gguf", "a-Q8_0-00002-of-00002.gguf"], "", "one of 2 parts"),
    ],
)
def test_why_no_file_is_taken(files: list[str], quant: str, words: str) -> None:
    with pytest.raises(Refused) as caught:
        hub.choose(files, Reference("u", "r", quant))
    assert words in caught.value.message


def test_a_model_is_named_after_its_repository_and_quantization() -> None:
    assert REPOSITORY.names()[0] == "Qwen3-4B-Q4_K_M"
    assert Reference("u", "r-GGUF", "q8_0").names() == ("r-Q8_0",)
    assert Reference("u", "r-GGUF", "File.Q2.gguf").names() == ("File.Q2",)


def listing(*files: str) -> bytes:
    return reply(200, json.dumps({"siblings": [{"rfilename": f} for f in files]}).encode())


def test_the_hub_is_asked_for_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    with http_server(lambda _: listing("README.md", "x/a b-Q4_0.gguf")) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url("/"))
        found = hub.find(REPOSITORY)
        url = server.url("/Qwen/Qwen3-4B-GGUF/resolve/main/x/a%20b-Q4_0.gguf")
    assert found == Found("Qwen3-4B-Q4_0", url)
    assert [r.path for r in server.requests] == ["/api/models/Qwen/Qwen3-4B-GGUF"]


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (reply(404), Refused, "no such repository"),
        (reply(401), Refused, "HF_TOKEN"),
        (reply(500), Failed, "answered 500"),
        (reply(200, b"<html>"), Failed, "is no list"),
        (reply(200, b'{"siblings": 5}'), Failed, "is no list"),
        (reply(200, b"[" * 100_000), Failed, "is no list"),
        (reply(200, b'{"siblings": [{"rfilename": 5}]}'), Failed, "no path"),
        (listing("../a-Q4_0.gguf"), Failed, "no path"),
        (listing("a\x1b-Q4_0.gguf"), Failed, "no path"),
    ],
)
def test_an_answer_that_is_wrong_is_named(
    answer: bytes, kind: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rule(_request: HttpRequest) -> bytes:
        return answer

    with http_server(rule) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url(""))
        with pytest.raises(kind) as caught:
            hub.find(REPOSITORY)
    assert words in str(caught.value)


def test_a_list_without_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MAX_LIST_BYTES", 1000)
    with http_server(lambda _: reply(200, b" " * 5000)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url(""))
        with pytest.raises(Failed, match="more than 1000 bytes"):
            hub.find(REPOSITORY)
