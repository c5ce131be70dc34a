"""A download over a network and from servers that fail, lie and lead astray."""

import dataclasses
import hashlib
import random
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Self

import pytest

from clients.http_server import HttpRequest, HttpServer, a_file, http_server, reply, trusting
from llamactl.download import FRUITLESS_ATTEMPTS, Download
from llamactl.fetch import Fetcher
from llamactl.source import BeginAgain
from llamad_client import ClientError, Failed, Refused
from unit.schedule.fakes import TIMEOUT_SECONDS

CONTENT = random.Random(4).randbytes(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MAX_BYTES = 10_000_000


class Case:
    """A download whose waiting is only written down."""

    def __init__(self, url: str, **arguments: Any) -> None:
        self.waited: list[float] = []
        self.notes: list[str] = []
        arguments.setdefault("fetcher", Fetcher(timeout_seconds=20, tokens={}))
        arguments.setdefault("max_bytes", MAX_BYTES)
        self.download = Download(url, sleep=self.waited.append, note=self.notes.append, **arguments)

    def read(self, kept: bytes = b"") -> bytes:
        """Read to the end as the service would, which keeps what came of the same content."""
        identity = self.download.identity
        while True:
            if self.download.identity != identity:
                kept, identity = b"", self.download.identity
            try:
                offset, pieces = self.download.open_at(len(kept))
                assert offset in (0, len(kept))
                kept = kept[:offset]
                for piece in pieces:
                    kept += piece
                return kept
            except BeginAgain:
                continue


def failure(function: Callable[[], object]) -> ClientError:
    with pytest.raises(ClientError) as caught:
        function()
    return caught.value


def ranges(server: HttpServer) -> list[str]:
    return [request.headers.get("range", "") for request in server.requests]


# ---- the usual -----------------------------------------------------------------------------------


def test_a_file_is_read_with_one_request() -> None:
    with http_server(a_file(CONTENT)) as server:
        case = Case(server.url())
        assert case.download.file_bytes == len(CONTENT)
        assert case.read() == CONTENT
    assert ranges(server) == [""]
    assert case.waited == []


def test_the_rest_of_a_partial_file_is_asked_for() -> None:
    with http_server(a_file(CONTENT)) as server:
        assert Case(server.url()).read(kept=CONTENT[:700_000]) == CONTENT
    assert ranges(server) == ["", "bytes=700000-"]
    assert server.requests[1].headers["if-range"] == '"v1"'


def test_nothing_is_asked_for_when_everything_was_kept() -> None:
    with http_server(a_file(CONTENT)) as server:
        assert Case(server.url()).read(kept=CONTENT) == CONTENT
    assert len(server.requests) == 1


def test_a_chunked_answer_has_no_size_and_ends_with_its_last_chunk() -> None:
    body = (
        b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (CONTENT, b"end")) + b"0\r\n\r\n"
    )
    answer = reply(200, body, "Transfer-Encoding: chunked", length=None)
    with http_server(lambda _: answer) as server:
        case = Case(server.url())
        assert case.download.file_bytes is None
        assert case.read() == CONTENT + b"end"


def test_an_empty_file_is_read() -> None:
    with http_server(a_file(b"")) as server:
        assert Case(server.url()).read() == b""


def test_bytes_behind_the_announced_length_are_not_taken() -> None:
    with http_server(lambda _: reply(200, CONTENT, length="1000")) as server:
        assert Case(server.url()).read() == CONTENT[:1000]


def test_a_connection_that_stays_open_behind_the_end_is_not_waited_for() -> None:
    released = threading.Event()

    def lingering(_: HttpRequest) -> Iterator[bytes]:
        yield reply(200, CONTENT)
        released.wait(TIMEOUT_SECONDS)

    with http_server(lingering) as server:
        assert Case(server.url()).read() == CONTENT
        assert not released.is_set()
        released.set()


# ---- a network that fails ------------------------------------------------------------------------


def test_a_cut_transfer_goes_on_where_it_stopped() -> None:
    with http_server(a_file(CONTENT, cuts=[300_000, 200_000, 0])) as server:
        case = Case(server.url())
        assert case.read() == CONTENT
    assert ranges(server) == ["", "bytes=300000-", "bytes=500000-", "bytes=500000-"]
    assert case.waited == [1.0, 1.0, 2.0]
    assert "trying again in 1 s" in case.notes[0]


def test_a_partial_answer_may_leave_out_what_the_first_one_said() -> None:
    silent = a_file(CONTENT, tag="", cuts=[100_000])
    rule = changing(a_file(CONTENT, cuts=[300_000]), silent)
    with http_server(rule) as server:
        case = Case(server.url())
        identity = case.download.identity
        assert case.read() == CONTENT
        assert case.download.identity == identity
    assert ranges(server) == ["", "bytes=300000-", "bytes=400000-"]


def test_a_server_without_ranges_begins_again() -> None:
    with http_server(a_file(CONTENT, cuts=[300_000, 600_000], ranges=False)) as server:
        assert Case(server.url()).read() == CONTENT


def test_without_a_validator_a_transfer_begins_again() -> None:
    with http_server(a_file(CONTENT, tag="", cuts=[300_000])) as server:
        assert Case(server.url()).read() == CONTENT
    assert set(ranges(server)) == {""}


@pytest.mark.parametrize("tag", ['W/"v1"', "v1", '"v\n1"'])
def test_a_weak_or_broken_tag_is_no_validator(tag: str) -> None:
    with http_server(lambda _: reply(200, CONTENT, f"ETag: {tag}")) as server:
        case = Case(server.url())
        assert case.download.identity == server.url()


def test_a_date_is_a_validator() -> None:
    date = "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT"
    with http_server(a_file(CONTENT, tag="", headers=(date,))) as server:
        case = Case(server.url())
        case.download.open_at(5)
    assert server.requests[1].headers["if-range"] == "Wed, 21 Oct 2015 07:28:00 GMT"


def test_attempts_without_progress_end() -> None:
    with http_server(a_file(CONTENT, cuts=[500_000] + [0] * 100)) as server:
        case = Case(server.url())
        error = failure(case.read)
    assert isinstance(error, Failed)
    assert error.message.endswith(f"gave up after {FRUITLESS_ATTEMPTS} attempts")
    assert case.waited == [1, 2, 4, 8, 16, 30, 30]


def test_the_same_bytes_again_are_no_progress() -> None:
    with http_server(a_file(CONTENT, cuts=[500_000] * 100, ranges=False)) as server:
        assert "gave up" in failure(Case(server.url()).read).message
    assert len(server.requests) < 3 * FRUITLESS_ATTEMPTS


def test_a_silent_server_is_given_up() -> None:
    with http_server(lambda _: b"") as server, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        fetcher = Fetcher(timeout_seconds=0.05, tokens={})
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/m"
        error = failure(lambda: Case(url, fetcher=fetcher))
        assert "no data came in time" in error.message
        assert "connection was cut" in failure(lambda: Case(server.url())).message


def test_a_refused_connection_fails_at_once_before_anything_was_heard() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/model.gguf"
        error = failure(lambda: Case(url))
    assert error.message == f"{url}: Connection refused"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(status: int) -> None:
    answers = iter([reply(status), reply(status)])
    with http_server(lambda r: next(answers, None) or a_file(CONTENT)(r)) as server:
        case = Case(server.url())
        assert case.read() == CONTENT
    assert case.waited == [1.0, 2.0]


class Noon(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls(2026, 1, 1, 12, tzinfo=tz)


def test_a_busy_server_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamactl.download.datetime", Noon)
    soon = "Thu, 01 Jan 2026 12:01:00 GMT"
    answers = iter([reply(503, b"", "Retry-After: 7"), reply(429, b"", f"Retry-After: {soon}")])
    with http_server(lambda r: next(answers, None) or a_file(CONTENT)(r)) as server:
        case = Case(server.url())
    assert case.waited == [7, 60]


def test_a_server_that_wants_to_be_left_alone_for_long_is() -> None:
    with http_server(lambda _: reply(503, b"", "Retry-After: 3600")) as server:
        error = failure(lambda: Case(server.url()))
    assert error.message.endswith("answered 503 and asks to come back in 3600 s")


# ---- a content that changes ----------------------------------------------------------------------


def changing(*rules: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Return the rule of a server that is another one for each request, the last one for ever."""
    order = iter(rules)
    current = [rules[-1]]

    def rule(request: HttpRequest) -> Any:
        current[0] = next(order, current[0])
        return current[0](request)

    return rule


def test_a_file_that_changes_in_the_middle_is_read_from_the_beginning() -> None:
    new = CONTENT[::-1] + b"more"
    rule = changing(a_file(CONTENT, cuts=[400_000]), a_file(new, tag='"v2"'))
    with http_server(rule) as server:
        case = Case(server.url())
        before = case.download.identity
        assert case.read() == new
        assert case.download.identity != before
        assert case.download.file_bytes == len(new)
    assert any("the file changed" in note for note in case.notes)
    assert len(server.requests) == 2  # the answer that showed the change was read on


def test_a_file_that_became_shorter_is_read_from_the_beginning() -> None:
    rule = changing(a_file(CONTENT, cuts=[400_000]), a_file(CONTENT[:1000], tag='"v2"'))
    with http_server(rule) as server:
        assert Case(server.url()).read() == CONTENT[:1000]


def test_a_range_beyond_the_end_begins_again() -> None:
    first, later = a_file(CONTENT, cuts=[400_000]), a_file(CONTENT)
    rule = changing(first, lambda _: reply(416), later)
    with http_server(rule) as server:
        assert Case(server.url()).read() == CONTENT


def test_a_file_that_changes_for_ever_is_given_up() -> None:
    number = iter(range(1000))

    def rule(request: HttpRequest) -> Any:
        return a_file(CONTENT, tag=f'"{next(number)}"', cuts=[1000])(request)

    with http_server(rule) as server:
        assert "gave up" in failure(Case(server.url()).read).message


# ---- lies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", ["-5", "lots", "1e3", "5, 6", "9" * 19, "0x10", "٣"])
def test_a_length_that_is_none_is_refused(length: str) -> None:
    answer = reply(200, b"12345", length=None).replace(
        b"\r\n\r\n", f"\r\nContent-Length: {length}\r\n\r\n".encode()
    )
    with http_server(lambda _: answer) as server:
        error = failure(lambda: Case(server.url()))
    assert "is no size" in error.message


def test_two_lengths_are_refused() -> None:
    with http_server(lambda _: reply(200, b"12345", "Content-Length: 7")) as server:
        assert "is no size" in failure(lambda: Case(server.url())).message


def test_a_length_above_the_limit_is_refused_before_the_transfer() -> None:
    with http_server(lambda _: reply(200, b"", length="123456789012")) as server:
        error = failure(lambda: Case(server.url()))
    assert isinstance(error, Refused)
    assert error.message.endswith(f"has 123456789012 bytes, allowed are {MAX_BYTES}")


def test_an_unknown_transfer_encoding_is_refused() -> None:
    with http_server(lambda _: reply(200, CONTENT, "Transfer-Encoding: gzip")) as server:
        assert "Transfer-Encoding 'gzip' is not" in failure(lambda: Case(server.url())).message


def test_an_endless_body_stops_at_the_limit() -> None:
    def endless(_: HttpRequest) -> Iterator[bytes]:
        yield reply(200, length=None)
        while True:
            yield bytes(65536)

    with http_server(endless) as server:
        error = failure(Case(server.url(), max_bytes=500_000).read)
    assert error.message.endswith("sends more than the allowed 500000 bytes")


def test_more_than_the_announced_size_is_refused() -> None:
    part = b"%x\r\n%s\r\n" % (len(CONTENT), CONTENT)
    headers = ("Transfer-Encoding: chunked", "X-Linked-Size: 1000000")
    chunked = reply(200, part + part, *headers, length=None)
    with http_server(lambda _: chunked) as server:
        error = failure(Case(server.url()).read)
    assert error.message.endswith("sends more than the 1000000 bytes it has")


@pytest.mark.parametrize(
    "content_range",
    [
        "",
        "bytes 0-999999/1000000",
        "bytes 400001-999999/1000000",
        "bytes 400000-399999/1000000",
        "bytes 400000-1000000/1000000",
        "bytes 400000-999999/500",
        "bytes */1000000",
        "bytes 400000-999998/1000000",
        "items 400000-999999/1000000",
        "bytes 400000-999999/1000000, bytes 0-1/5",
        "bytes -400000-999999/1000000",
    ],
)
def test_a_range_that_was_not_asked_for_is_refused(content_range: str) -> None:
    lie = reply(206, CONTENT[400_000:], f"Content-Range: {content_range}", 'ETag: "v1"')
    rule = changing(a_file(CONTENT, cuts=[400_000]), lambda _: lie)
    with http_server(rule) as server:
        error = failure(Case(server.url()).read)
    assert "asked from byte 400000 on, it sends" in error.message


def test_a_range_that_nobody_asked_for_is_refused() -> None:
    answer = reply(206, CONTENT, f"Content-Range: bytes 0-999999/{len(CONTENT)}")
    with http_server(lambda _: answer) as server:
        assert "asked from byte 0 on" in failure(lambda: Case(server.url())).message


def test_another_total_in_the_middle_begins_again() -> None:
    lie = reply(206, CONTENT[400_000:], "Content-Range: bytes 400000-999999/2000000", 'ETag: "v1"')
    new = CONTENT + CONTENT
    rule = changing(a_file(CONTENT, cuts=[400_000]), lambda _: lie, a_file(new))
    with http_server(rule) as server:
        assert Case(server.url()).read() == new


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_a_compressed_body_is_refused(encoding: str) -> None:
    with http_server(lambda _: reply(200, CONTENT, f"Content-Encoding: {encoding}")) as server:
        assert "compressed" in failure(lambda: Case(server.url())).message
    assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
    ids=["another protocol", "many headers", "a long header"],
)
def test_what_is_no_http_is_refused(answer: bytes) -> None:
    with http_server(lambda _: answer) as server:
        assert "is no proper HTTP" in failure(lambda: Case(server.url())).message


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "needs a login"),
        (403, "forbidden"),
        (404, "no such file"),
        (410, "gone"),
        (418, "that is no file"),
        (204, "that is no file"),
    ],
)
def test_a_refusal_is_final_and_says_why(status: int, words: str) -> None:
    with http_server(lambda _: reply(status, b"<html>")) as server:
        error = failure(lambda: Case(server.url()))
    assert words in error.message
    assert f"the server answered {status}" in error.message
    assert len(server.requests) == 1


# ---- Hugging Face --------------------------------------------------------------------------------


def hub(content: bytes, sha256: str, cuts: list[int]) -> Callable[[HttpRequest], Any]:
    """Return a rule that redirects as Hugging Face does, to caches that disagree about tags."""
    number = iter(range(100))

    def rule(request: HttpRequest) -> Any:
        if request.path == "/model.gguf":
            headers = (f'X-Linked-Etag: "{sha256}"', f"X-Linked-Size: {len(content)}")
            return reply(302, b"", "Location: /cache/x?signature=secret", *headers)
        cut = [cuts.pop(0)] if cuts else []
        return a_file(content, tag=f'"{next(number)}"', cuts=cut)(request)

    return rule


def test_the_hash_of_a_linked_file_is_taken_and_shows_that_it_is_the_same() -> None:
    with http_server(hub(CONTENT, SHA256, [300_000])) as server:
        case = Case(server.url())
        assert case.download.sha256 == SHA256
        assert case.download.identity == f"{server.url()} {SHA256}"
        assert case.read() == CONTENT
    assert ranges(server) == ["", "", "bytes=300000-", "bytes=300000-"]


def test_what_is_no_sha256_is_not_taken_for_one() -> None:
    with http_server(hub(CONTENT, "5d41402abc4b2a76b9719d911017c592", [])) as server:
        assert Case(server.url()).download.sha256 == ""


def test_a_model_with_conditions_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    with http_server(lambda _: reply(403)) as server:
        fetcher = Fetcher(timeout_seconds=20, tokens={})
        answer = fetcher.get(server.url(), {})
        url = "https://huggingface.co/org/repo/resolve/main/m.gguf"
        gated = dataclasses.replace(answer, url=url)
        monkeypatch.setattr(Fetcher, "get", lambda *_, **__: gated)
        error = failure(lambda: Case(url))
    assert error.message.endswith("accept them on its page and set HF_TOKEN")


def test_no_message_and_no_identity_has_a_query_or_a_password() -> None:
    with http_server(a_file(CONTENT, cuts=[5])) as server:
        url = server.url("/m.gguf?token=secret").replace("//", "//me:secret@")
        case = Case(url)
        case.read()
        assert "secret" not in case.download.identity
        assert not any("secret" in note for note in case.notes)
        other = Case(server.url("/m.gguf?token=other"))
        assert other.download.identity != case.download.identity
    with http_server(lambda _: reply(404)) as server:
        url = server.url("/m.gguf?token=secret").replace("//", "//me:secret@")
        assert "secret" not in failure(lambda: Case(url)).message


def test_a_trusted_certificate_is_accepted(tmp_path: Path) -> None:
    with http_server(a_file(CONTENT, cuts=[1000]), tls=True) as server:
        fetcher = Fetcher(timeout_seconds=20, tls=trusting(), tokens={})
        assert Case(server.url(), fetcher=fetcher).read() == CONTENT
