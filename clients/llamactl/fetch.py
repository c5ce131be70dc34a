"""One GET request over HTTP or HTTPS, followed through redirects under our rules.

Owns what may be asked of whom: certificates and host names are verified, HTTPS never falls back to
HTTP, a redirect stays within HTTP, tokens go to their own host only, and no error shows a password
or the signature in a query. What the body means, and whether to ask again, is ``download.py``'s.
"""

import base64
import email.message
import http.client
import os
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit, urlunsplit

from llamad_client import Failed, Refused, __version__

TIMEOUT_SECONDS = 60.0  # without a single byte
MAX_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
HUGGING_FACE = "huggingface.co"
_SAFE = "!#$%&'()*+,/:;=?@[]~"  # of an URL that was written with spaces or umlauts


class Interrupted(Exception):  # noqa: N818 - it says what happened
    """The network or the server failed in a way that may pass.

    after_seconds: when the server wants to be asked again, None when it did not say.
    """

    def __init__(self, message: str, after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


class Body(Protocol):
    """What is left of an answer to read."""

    def read1(self, n: int = -1, /) -> bytes:
        """Return the next bytes, at most n; none at the end."""

    def close(self) -> None:
        """End the connection."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the last server of a chain of redirects answered.

    linked: the X-Linked-* headers on the way, names in lower case; the first server's word counts.
    """

    url: str  # without credentials and query, for people
    status: int
    headers: email.message.Message
    linked: Mapping[str, str]
    body: Body


def _tokens() -> Mapping[str, str]:
    token = os.environ.get("HF_TOKEN", "").strip()
    return {HUGGING_FACE: token} if token else {}


@dataclass(frozen=True, slots=True)
class Fetcher:
    """How requests are made. tokens: bearer tokens by host; they travel over HTTPS only."""

    timeout_seconds: float = TIMEOUT_SECONDS
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    tokens: Mapping[str, str] = field(default_factory=_tokens)

    def get(self, url: str, headers: Mapping[str, str], *, first_contact: bool = True) -> Answer:
        """Return the answer that is no redirect.

        first_contact: a host that is not known or refuses is final; later it may have restarted.
        Raises Interrupted when asking again may help, Refused and Failed when not.
        """
        first = parse_url(url)
        parts, linked, seen = first, dict[str, str](), [shown(url)]
        visited = {url}
        while True:
            allowed = {**headers, **self._authorization(first, parts)}
            answer = self._ask(parts, allowed, first_contact=first_contact)
            for name, value in answer.headers.items():
                if name.lower().startswith("x-linked-"):
                    linked.setdefault(name.lower(), value)
            if answer.status not in REDIRECTS:
                return Answer(seen[-1], answer.status, answer.headers, linked, answer.body)
            answer.body.close()
            parts = _target(parts, answer)
            seen.append(shown(urlunsplit(parts)))
            if urlunsplit(parts) in visited:
                raise Failed("REDIRECT_LOOP", f"redirected in a circle: {' -> '.join(seen)}")
            if len(visited) > MAX_REDIRECTS:
                limit = f"more than {MAX_REDIRECTS} redirects"
                raise Failed("TOO_MANY_REDIRECTS", f"{limit}: {' -> '.join(seen)}")
            visited.add(urlunsplit(parts))

    def _ask(
        self, parts: SplitResult, headers: Mapping[str, str], *, first_contact: bool
    ) -> Answer:
        """Send one request; follow nothing."""
        bare = urlunsplit(parts._replace(netloc=_host_and_port(parts)))
        request = urllib.request.Request(
            bare,
            headers={
                "User-Agent": f"llamactl/{__version__}",
                "Accept-Encoding": "identity",  # a range of compressed bytes is of no use
                **headers,
            },
        )
        # Only what we want of urllib: the proxies of the environment, and no answer is an error.
        opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=self.tls),
            urllib.request.UnknownHandler(),  # a proxy of a kind that urllib cannot use
        ):
            opener.add_handler(handler)
        with network_errors(shown(bare), first_contact=first_contact):
            response = opener.open(request, timeout=self.timeout_seconds)
        assert isinstance(response, http.client.HTTPResponse)
        return Answer(shown(bare), response.status, response.headers, {}, response)

    def _authorization(self, first: SplitResult, parts: SplitResult) -> Mapping[str, str]:
        """Return what may be shown to a server: the URL's password to its own, or our token."""
        if first.username is not None and _origin(first) == _origin(parts):
            pair = f"{unquote(first.username)}:{unquote(first.password or '')}"
            return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
        token = self.tokens.get(parts.hostname or "") if parts.scheme == "https" else None
        if token is None:
            return {}
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise Refused("INVALID_TOKEN", f"the token for {parts.hostname} is no printable word")
        return {"Authorization": f"Bearer {token}"}


def parse_url(url: str) -> SplitResult:
    """Return the parts of an HTTP(S) URL, without its fragment. Raises Refused."""
    try:
        parts = urlsplit(quote(url, safe=_SAFE))._replace(fragment="")
        has_host = bool(parts.hostname)
        _ = parts.port  # raises when it is no number
    except ValueError as error:
        raise Refused("INVALID_URL", f"{shown(url)}: {error}") from None
    if parts.scheme not in ("http", "https") or not has_host:
        raise Refused("INVALID_URL", f"{shown(url)}: is no http:// or https:// URL")
    return parts


def shown(url: str) -> str:
    """Return an URL as it may be printed and stored.

    Without credentials, query and fragment; control characters, which a terminal obeys, encoded.
    """
    scheme, separator, rest = url.partition("://")
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    bare = f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
    return quote(bare, safe=_SAFE, errors="replace")


@contextmanager
def network_errors(url: str, *, first_contact: bool) -> Iterator[None]:
    """Turn errors of sockets, TLS and HTTP into Interrupted or Failed."""
    try:
        yield
    except urllib.error.URLError as error:
        reason = error.reason
        if not isinstance(reason, OSError):
            raise Failed("DOWNLOAD_FAILED", f"{url}: {reason}") from None
        raise _network_error(url, reason, first_contact) from None
    except (http.client.IncompleteRead, http.client.RemoteDisconnected) as error:
        raise Interrupted(f"{url}: the connection was cut ({type(error).__name__})") from None
    except http.client.HTTPException as error:
        message = f"{url}: the answer is no proper HTTP: {type(error).__name__} {str(error)[:80]!r}"
        raise Failed("INVALID_ANSWER", message) from None
    except OSError as error:
        raise _network_error(url, error, first_contact) from None


def _network_error(url: str, error: OSError, first_contact: bool) -> Exception:
    if isinstance(error, ssl.SSLCertVerificationError):
        message = f"{url}: the certificate is not valid: {error.verify_message}"
        return Failed("INVALID_CERTIFICATE", message)
    if isinstance(error, TimeoutError):
        return Interrupted(f"{url}: no data came in time")
    reason = error.strerror or str(error)
    if isinstance(error, socket.gaierror):
        reason = f"no address for {urlsplit(url).hostname}: is this machine online? ({reason})"
    unknown = isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN
    if first_contact and (unknown or isinstance(error, ConnectionRefusedError)):
        return Failed("DOWNLOAD_FAILED", f"{url}: {reason}")
    return Interrupted(f"{url}: {reason}")


def _target(parts: SplitResult, answer: Answer) -> SplitResult:
    """Return where a redirect leads. Raises Failed where we do not go."""
    location = answer.headers.get("Location", "")
    if not location:
        raise Failed("INVALID_ANSWER", f"{answer.url}: a redirect without Location")
    joined = location
    try:
        joined = urljoin(urlunsplit(parts._replace(netloc=_host_and_port(parts))), location)
        target = parse_url(joined)
    except (Refused, ValueError):
        message = f"{answer.url}: redirected to {shown(joined)}, which is no http:// or https://"
        raise Failed("INVALID_REDIRECT", message) from None
    if parts.scheme == "https" and target.scheme != "https":
        message = f"{answer.url}: redirected to {shown(joined)}, which is not encrypted"
        raise Failed("INVALID_REDIRECT", message)
    return target


def _host_and_port(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    port = parts.port if parts.port is not None else {"http": 80, "https": 443}[parts.scheme]
    return parts.scheme, parts.hostname, port
