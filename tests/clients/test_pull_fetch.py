"""Who is asked, and what is shown to whom: redirects, certificates, tokens, proxies."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

from clients.http_server import HttpRequest, a_file, http_server, reply, trusting
from llamactl.download import Download
from llamactl.fetch import Fetcher, parse_url, shown
from llamad_client import ClientError, Failed, Refused


def get(url: str, **arguments: Any) -> tuple[int, str]:
    """Return the status and the URL of the last answer."""
    arguments.setdefault("tokens", {})
    answer = Fetcher(timeout_seconds=20, **arguments).get(url, {})
    answer.body.close()
    return answer.status, answer.url


def failure(url: str, **arguments: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        get(url, **arguments)
    return caught.value


def redirect(location: str) -> bytes:
    return reply(302, b"", f"Location: {location}")


def counting(request: HttpRequest) -> bytes:
    """Answer a path that is a number with a redirect to one less."""
    number = int(request.path[1:])
    return redirect(f"/{number - 1}") if number else reply(200, b"here")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int) -> None:
    answers = {"/a": reply(status, b"", "Location: b?x=1"), "/b?x=1": reply(200)}
    with http_server(lambda r: answers[r.path]) as server:
        assert get(server.url("/a")) == (200, server.url("/b"))


def test_ten_redirects_are_followed_and_eleven_are_not() -> None:
    with http_server(counting) as server:
        assert get(server.url("/10"))[0] == 200
        error = failure(server.url("/11"))
        steps = " -> ".join(server.url(f"/{number}") for number in range(11, -1, -1))
    assert error.message == f"more than 10 redirects: {steps}"


def test_a_circle_is_named() -> None:
    answers = {"/a": redirect("/b"), "/b": redirect("/c"), "/c": redirect("/b")}
    with http_server(lambda r: answers[r.path]) as server:
        error = failure(server.url("/a"))
        steps = " -> ".join(server.url(path) for path in ("/a", "/b", "/c", "/b"))
    assert error.message == f"redirected in a circle: {steps}"


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "http://h:port/", "//[/"],
)
def test_a_redirect_out_of_http_is_refused(location: str) -> None:
    with http_server(lambda _: redirect(location)) as server:
        error = failure(server.url())
    assert error.reason == "INVALID_REDIRECT"
    assert error.message.endswith("which is no http:// or https://")


def test_a_redirect_to_nowhere_is_refused() -> None:
    with http_server(lambda _: reply(302)) as server:
        assert failure(server.url()).message == f"{server.url()}: a redirect without Location"


def test_a_redirect_from_https_to_http_is_refused() -> None:
    with (
        http_server(counting) as plain,
        http_server(lambda _: redirect(plain.url("/0")), tls=True) as server,
    ):
        error = failure(server.url(), tls=trusting())
        where = plain.url("/0")
    assert error.message == f"{server.url()}: redirected to {where}, which is not encrypted"
    assert plain.requests == []


def test_a_redirect_from_http_to_https_is_followed() -> None:
    with (
        http_server(counting, tls=True) as server,
        http_server(lambda _: redirect(server.url("/0"))) as plain,
    ):
        assert get(plain.url(), tls=trusting())[0] == 200


def test_an_unknown_certificate_is_refused() -> None:
    with http_server(counting, tls=True) as server:
        error = failure(server.url("/0"))
    assert error.reason == "INVALID_CERTIFICATE"
    assert server.requests == []


def test_a_certificate_for_another_host_is_refused() -> None:
    with http_server(counting, tls=True, address="127.0.0.2") as server:
        error = failure(server.url("/0"), tls=trusting())
    assert error.reason == "INVALID_CERTIFICATE"
    assert "127.0.0.2" in error.message.partition("certificate")[2]
    assert server.requests == []


# ---- tokens and passwords ------------------------------------------------------------------------


@pytest.fixture
def localhost_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the name localhost mean 127.0.0.1, whatever /etc/hosts of the machine says."""
    resolve = socket.getaddrinfo

    def known(host: Any, *rest: Any, **named: Any) -> Any:
        return resolve("127.0.0.1" if host == "localhost" else host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", known)


def authorization(server: Any) -> list[str]:
    return [request.headers.get("authorization", "") for request in server.requests]


@pytest.mark.usefixtures("localhost_is_known")
def test_a_token_goes_to_its_host_only() -> None:
    with http_server(counting, tls=True) as other:
        target = other.url("/1")
        with http_server(lambda _: redirect(target), tls=True) as server:
            get(server.url(host="localhost"), tls=trusting(), tokens={"localhost": "hf_secret"})
    assert authorization(server) == ["Bearer hf_secret"]
    assert authorization(other) == ["", ""]


@pytest.mark.usefixtures("localhost_is_known")
def test_a_token_does_not_go_over_plain_http() -> None:
    with http_server(counting) as server:
        get(server.url("/0", host="localhost"), tokens={"localhost": "hf_secret"})
    assert authorization(server) == [""]


def test_the_token_of_the_environment_is_for_hugging_face(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", " hf_secret\n")
    assert Fetcher().tokens == {"huggingface.co": "hf_secret"}
    monkeypatch.setenv("HF_TOKEN", "")
    assert Fetcher().tokens == {}


def test_a_token_that_would_break_the_header_is_refused() -> None:
    with http_server(counting, tls=True) as server:
        url = server.url("/0", host="localhost")
        error = failure(url, tls=trusting(), tokens={"localhost": "a\r\nX: y"})
    assert error.message == "the token for localhost is no printable word"
    assert server.requests == []


def test_a_password_in_the_url_goes_to_its_server_only() -> None:
    with (
        http_server(counting) as other,
        http_server(lambda _: redirect(other.url("/0"))) as server,
    ):
        get(server.url().replace("//", "//me:a%20b@"))
    assert authorization(server) == ["Basic bWU6YSBi"]
    assert authorization(other) == [""]


# ---- URLs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://me:pw@h:1/a?b#c", "https://h:1/a"),
        ("https://h/a@b", "https://h/a@b"),
        ("https://h?x=me@y", "https://h"),
        ("https://h/\x1b[2J\udcff", "https://h/%1B[2J?"),
    ],
)
def test_what_is_shown_of_an_url(url: str, expected: str) -> None:
    assert shown(url) == expected


@pytest.mark.parametrize(
    "url", ["ftp://h/x", "http://", "https:///x", "http://h:99999/", "x", "http://h/\udcff"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        parse_url(url)


def test_spaces_and_line_ends_in_an_url_are_encoded() -> None:
    with http_server(lambda _: reply(200)) as server:
        get(server.url("/a b\r\nX: y"))
    assert server.requests[0].path == "/a%20b%0D%0AX:%20y"


def test_the_page_of_a_file_means_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refuse(_: Fetcher, url: str, *_arguments: object, **_named: object) -> None:
        asked.append(url)
        raise Failed("X", "stop")

    monkeypatch.setattr(Fetcher, "get", refuse)
    base = "https://huggingface.co/org/repo"
    for path in ("/blob/main/a/m.gguf?download=true", "/resolve/blob/main/m.gguf"):
        with pytest.raises(Failed):
            Download(base + path, max_bytes=1)
    with pytest.raises(Failed):
        Download("https://example.org/org/repo/blob/main/m.gguf", max_bytes=1)
    assert asked == [
        f"{base}/resolve/main/a/m.gguf?download=true",
        f"{base}/resolve/blob/main/m.gguf",
        "https://example.org/org/repo/blob/main/m.gguf",
    ]


# ---- proxies -------------------------------------------------------------------------------------


def test_the_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    rule: Callable[[HttpRequest], bytes] = a_file(b"from the proxy")  # type: ignore[assignment]
    with http_server(rule) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        assert get("http://models.example.org/m")[0] == 200
    assert proxy.requests[0].path == "http://models.example.org/m"


def test_a_proxy_of_an_unknown_kind_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert "unknown url type" in failure("http://models.example.org/m").message
