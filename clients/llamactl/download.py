"""A file behind an HTTP(S) URL, read to its end over a network that fails.

Owns what the answers' headers mean, how often is asked again and where a transfer goes on. What a
server says is believed only where it agrees with what was said before: a transfer goes on when the
content is provably the same, by ETag or date (RFC 9110, 13.1.5) or by the sha256 that Hugging Face
names, and begins again otherwise. How a request is made is ``fetch.py``'s.
"""

import email.message
import email.utils
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import NoReturn
from urllib.parse import SplitResult, urlsplit, urlunsplit

from llamactl.fetch import (
    HUGGING_FACE,
    Answer,
    Fetcher,
    Interrupted,
    network_errors,
    parse_url,
    shown,
)
from llamactl.source import PIECE_BYTES, BeginAgain
from llamad_client import Failed, Refused

FRUITLESS_ATTEMPTS = 8  # in a row, without a byte that was not there before: about two minutes
LONGEST_WAIT_SECONDS = 30.0
LONGEST_RETRY_AFTER_SECONDS = 120.0
LONGEST_PIECE_SECONDS = 0.5  # so that progress is seen and little is lost on a slow line
RECEIVE_BYTES = 1 << 16
TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_PROBLEMS: Mapping[int, str] = {
    401: "needs a login",
    403: "access is forbidden",
    404: "there is no such file",
    407: "the proxy needs a login",
    410: "the file is gone",
    451: "not available for legal reasons",
}


@dataclass(frozen=True, slots=True)
class Entity:
    """The content that a server has behind the URL. validator: for If-Range, or empty."""

    file_bytes: int | None
    validator: str
    sha256: str

    def may_be(self, other: "Entity") -> bool:
        """Whether nothing says that another answer was about another content."""
        return all(
            not mine or not theirs or mine == theirs
            for mine, theirs in (
                (self.sha256, other.sha256),
                (self.file_bytes, other.file_bytes),
                # the same sha256 may have a tag for each of a network's caches
                ("" if self.sha256 else self.validator, other.validator),
            )
        )

    def completed_by(self, other: "Entity") -> "Entity":
        """Return what is known after another answer about the same content."""
        return Entity(
            self.file_bytes if self.file_bytes is not None else other.file_bytes,
            self.validator or other.validator,
            self.sha256 or other.sha256,
        )


class Download:
    """A source of bytes; see ``source.Source``. Not for two threads at a time."""

    def __init__(
        self,
        url: str,
        *,
        max_bytes: int,
        fetcher: Fetcher | None = None,
        sleep: Callable[[float], None] = time.sleep,
        note: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Ask for the file, as far as the headers. Raises Refused and Failed.

        note: is told what is waited for.
        """
        parts = _file_page_to_file(parse_url(url))
        self._url = urlunsplit(parts)
        self._query = parts.query
        self._max_bytes = max_bytes
        self._fetcher = fetcher if fetcher is not None else Fetcher()
        self._sleep = sleep
        self._note = note
        self._entity: Entity | None = None  # None until the first answer
        self._seen = 0  # the most bytes of the file that ever came
        self._fruitless = 0
        self._opened: Opened | None = None  # asked for, not read yet
        self._learn(0)

    @property
    def identity(self) -> str:
        """What identifies the content: the URL, and what the server calls this state of it."""
        entity = self._known()
        query = f" query {sha256(self._query.encode()).hexdigest()[:16]}" if self._query else ""
        return f"{shown(self._url)}{query} {entity.sha256 or entity.validator}".rstrip()

    @property
    def file_bytes(self) -> int | None:
        """The size of the file, None when the server does not say."""
        return self._known().file_bytes

    @property
    def sha256(self) -> str:
        """What the server says of the file: its word, over TLS. Empty when it says nothing."""
        return self._known().sha256

    def open_at(self, offset: int) -> tuple[int, Iterator[bytes]]:
        """Return the file from an offset on, or from 0 when the server cannot do that."""
        if offset and offset == self.file_bytes:
            return offset, iter(())
        if self._opened is None or self._opened.start != offset:
            self._learn(offset)
        opened, self._opened = self._opened, None
        assert opened is not None
        return opened.start, self._pieces(opened)

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._opened is not None:
            self._opened.answer.body.close()
            self._opened = None

    # ---- asking ----------------------------------------------------------------------------------

    def _learn(self, offset: int) -> None:
        """Ask for the file from an offset on, as often as it takes.

        Raises BeginAgain when it is not the content that earlier answers were about.
        """
        while True:
            self.close()
            try:
                answer = self._fetcher.get(
                    self._url, self._range_headers(offset), first_contact=self._entity is None
                )
                opened = self._read_headers(answer, offset)
                break
            except Interrupted as error:
                self._wait(error)
        known, new = self._entity, opened.entity
        self._opened = opened
        if known is None or known.may_be(new):
            self._entity = new if known is None else known.completed_by(new)
            return
        self._entity = new
        if opened.start:
            self.close()
        self._count_attempt(f"{opened.answer.url}: the file changed")
        self._note(f"{opened.answer.url}: the file changed; beginning again")
        raise BeginAgain

    def _range_headers(self, offset: int) -> Mapping[str, str]:
        entity = self._entity
        if not offset or entity is None:
            return {}
        if entity.sha256:  # compared with the next answer's, and with the whole file in the end
            return {"Range": f"bytes={offset}-"}
        if entity.validator:
            return {"Range": f"bytes={offset}-", "If-Range": entity.validator}
        return {}  # nothing would show that the rest belongs to the beginning

    def _read_headers(self, answer: Answer, offset: int) -> "Opened":
        """Check what the headers say. Closes the answer when it raises."""
        try:
            return self._check_headers(answer, offset)
        except BaseException:
            answer.body.close()
            raise

    def _check_headers(self, answer: Answer, offset: int) -> "Opened":
        if answer.status in TEMPORARY:
            _refuse_for_now(answer)
        if answer.status == 416 and offset:
            # It has no such bytes, so it is another file now; the next answer will show which.
            self._entity = replace(self._known(), validator="", sha256="")
            raise Interrupted(f"{answer.url}: has no bytes from {offset} on", after_seconds=0.0)
        if answer.status not in (200, 206):
            raise _refusal(answer)
        encoding = ", ".join(answer.headers.get_all("Content-Encoding", ["identity"]))
        if encoding.strip().lower() != "identity":
            message = f"{answer.url}: came compressed ({encoding[:80]!r}), which was not asked for"
            raise Failed("INVALID_ANSWER", message)
        length = _content_length(answer)
        start, total = 0, length
        if answer.status == 206:
            start, total = _content_range(answer, offset, length)
        linked = answer.linked.get("x-linked-size", "")
        if total is None and re.fullmatch(r"\d{1,18}", linked):
            total = int(linked)
        if total is not None and total > self._max_bytes:
            message = f"{answer.url}: has {total} bytes, allowed are {self._max_bytes}"
            raise Refused("TOO_LARGE", message)
        entity = Entity(total, _validator(answer.headers), _linked_sha256(answer))
        return Opened(answer, start, length, entity)

    def _known(self) -> Entity:
        assert self._entity is not None
        return self._entity

    def _wait(self, error: Interrupted) -> None:
        """Wait before asking again; raise Failed when that has brought nothing for too long."""
        seconds = error.after_seconds
        if seconds is None:
            seconds = min(LONGEST_WAIT_SECONDS, 2.0**self._fruitless)
        self._count_attempt(str(error))
        self._note(f"{error}; trying again in {seconds:.0f} s")
        self._sleep(seconds)

    def _count_attempt(self, reason: str) -> None:
        self._fruitless += 1
        if self._fruitless >= FRUITLESS_ATTEMPTS:
            raise Failed("DOWNLOAD_FAILED", f"{reason}; gave up after {self._fruitless} attempts")

    # ---- reading ---------------------------------------------------------------------------------

    def _pieces(self, opened: "Opened") -> Iterator[bytes]:
        """Yield the file from where an answer begins to the end, asking again where one is cut."""
        offset = opened.start
        while True:
            try:
                for piece in _read(opened):
                    offset += len(piece)
                    self._count_bytes(offset, opened)
                    yield piece
                if self.file_bytes is None or offset == self.file_bytes:
                    return
                message = f"ended after {offset} of {self.file_bytes} bytes"
                raise Interrupted(f"{opened.answer.url}: {message}")
            except Interrupted as error:
                self._wait(error)
            finally:
                opened.answer.body.close()
            self._learn(offset)
            following = self._opened
            assert following is not None
            if following.start != offset:
                raise BeginAgain
            opened, self._opened = following, None

    def _count_bytes(self, offset: int, opened: "Opened") -> None:
        """Check the size so far. A byte that never came before is progress."""
        if self.file_bytes is not None and offset > self.file_bytes:
            message = f"{opened.answer.url}: sends more than the {self.file_bytes} bytes it has"
            raise Failed("INVALID_ANSWER", message)
        if offset > self._max_bytes:
            message = f"{opened.answer.url}: sends more than the allowed {self._max_bytes} bytes"
            raise Refused("TOO_LARGE", message)
        if offset > self._seen:
            self._seen = offset
            self._fruitless = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer whose headers are in order. length: bytes of its body, None when not said."""

    answer: Answer
    start: int
    length: int | None
    entity: Entity


def _read(opened: Opened) -> Iterator[bytes]:
    """Yield an answer's body in pieces that neither cost much each nor keep people waiting.

    Raises Interrupted, after all that came before it.
    """
    left = opened.length
    while left is None or left:
        piece, interrupted = bytearray(), None
        begun = time.monotonic()
        while len(piece) < PIECE_BYTES and time.monotonic() - begun < LONGEST_PIECE_SECONDS:
            wanted = RECEIVE_BYTES if left is None else min(left, RECEIVE_BYTES)
            if not wanted:
                break
            try:
                with network_errors(opened.answer.url, first_contact=False):
                    data = opened.answer.body.read1(wanted)
            except Interrupted as error:
                interrupted = error
                break
            if not data:
                left = 0
                break
            piece += data
            left = None if left is None else left - len(data)
        if piece:
            yield bytes(piece)
        if interrupted is not None:
            raise interrupted


# ---- what headers mean ---------------------------------------------------------------------------


def _file_page_to_file(parts: SplitResult) -> SplitResult:
    """Turn the page that shows a file on Hugging Face into the file: blob becomes resolve."""
    match = re.fullmatch(r"(/[^/]+/[^/]+)/blob/([^/]+/.+)", parts.path)
    if parts.hostname != HUGGING_FACE or match is None:
        return parts
    return parts._replace(path=f"{match[1]}/resolve/{match[2]}")


def _content_length(answer: Answer) -> int | None:
    """Return the bytes of the body, None when not said. Raises Failed for what is no size."""
    transfer = answer.headers.get("Transfer-Encoding")
    if transfer is not None:
        if str(transfer).strip().lower() != "chunked":
            message = f"{answer.url}: Transfer-Encoding {str(transfer)[:80]!r} is not known"
            raise Failed("INVALID_ANSWER", message)
        return None
    values = answer.headers.get_all("Content-Length", [])
    sizes = {value.strip() for line in values for value in line.split(",")}
    if not sizes:
        return None
    size = sizes.pop()
    if sizes or not re.fullmatch(r"[0-9]{1,18}", size):
        message = f"{answer.url}: Content-Length {', '.join(values)[:80]!r} is no size"
        raise Failed("INVALID_ANSWER", message)
    return int(size)


def _content_range(answer: Answer, offset: int, length: int | None) -> tuple[int, int | None]:
    """Return the start of a partial answer and the size of the whole (RFC 9110, 14.4)."""
    text = answer.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", text.strip())
    if match is not None and offset:
        start, last = int(match[1]), int(match[2])
        total = None if match[3] == "*" else int(match[3])
        if (
            start == offset <= last
            and (total is None or last < total)
            and (length is None or length == last - start + 1)
        ):
            return start, total
    message = f"asked from byte {offset} on, it sends {text[:80] or 'an unknown part'!r}"
    raise Failed("INVALID_ANSWER", f"{answer.url}: {message}")


def _validator(headers: email.message.Message) -> str:
    """Return what names this state of the content for sure: a strong ETag, or else its date."""
    tag = str(headers.get("ETag", "")).strip()
    if re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', tag):
        return tag
    date = str(headers.get("Last-Modified", "")).strip()
    return date if _seconds_from_now(date) is not None else ""


def _linked_sha256(answer: Answer) -> str:
    tag = answer.linked.get("x-linked-etag", "").strip().strip('"').lower()
    return tag if re.fullmatch(r"[0-9a-f]{64}", tag) else ""


def _refuse_for_now(answer: Answer) -> NoReturn:
    """Raise Interrupted for a busy server; Failed when it wants to be left alone for long."""
    reason = f"{answer.url}: the server answered {answer.status}"
    text = str(answer.headers.get("Retry-After", "")).strip()
    seconds = float(text) if re.fullmatch(r"[0-9]{1,9}", text) else _seconds_from_now(text)
    if seconds is not None and seconds > LONGEST_RETRY_AFTER_SECONDS:
        raise Failed("SERVER_BUSY", f"{reason} and asks to come back in {seconds:.0f} s")
    raise Interrupted(reason, None if seconds is None else max(0.0, seconds))


def _seconds_from_now(date: str) -> float | None:
    """Return the time until an HTTP date, negative for the past; None for what is no date."""
    try:
        moment = email.utils.parsedate_to_datetime(date)
    except ValueError:
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (moment - datetime.now(UTC)).total_seconds()


def _refusal(answer: Answer) -> Failed:
    problem = _PROBLEMS.get(answer.status, "that is no file")
    hint = ""
    if answer.status in (401, 403) and urlsplit(answer.url).hostname == HUGGING_FACE:
        hint = "; for a model with conditions, accept them on its page and set HF_TOKEN"
    message = f"{answer.url}: {problem} (the server answered {answer.status}){hint}"
    return Failed("DOWNLOAD_FAILED", message)
