"""Models by the name of their repository: ``hf.co/USER/REPO[:QUANT]``.

Owns what such a name means: the hub is asked for the list of the repository's files, and the file
with the asked for, or the most suitable, quantization is taken. Fetching it is ``download.py``'s.
The address of the hub is $HF_ENDPOINT, where that is set.
"""

import json
import os
import re
from dataclasses import dataclass
from urllib.parse import quote

from llamactl.fetch import HUGGING_FACE, Body, Fetcher, Interrupted, network_errors
from llamactl.source import MAX_NAME_CHARACTERS, model_name
from llamad_client import Failed, Refused

ENVIRONMENT = "HF_ENDPOINT"
MAX_LIST_BYTES = 8 << 20
PREFERRED = (  # from good for its size on a board to merely possible
    "Q4_K_M", "Q4_0", "Q4_K_S", "Q4_1", "Q5_K_M", "Q5_K_S", "Q5_0", "Q5_1", "Q6_K", "Q8_0",
    "Q3_K_M", "Q3_K_L", "Q3_K_S", "Q2_K", "F16", "BF16", "F32",
)  # fmt: skip
_REFERENCE = re.compile(
    r"(?:https?://)?(?:www\.)?(?:hf\.co|huggingface\.co)/([\w.-]+)/([\w.-]+?)(?::([\w.-]+))?/?",
    re.ASCII | re.IGNORECASE,
)
_HALF = re.compile(  # a repository too little, or a path in one without https://
    r"(?:www\.)?(?:hf\.co|huggingface\.co)(?:/.*)?"
    r"|https?://(?:www\.)?(?:hf\.co|huggingface\.co)(?:/[^/]*)?/?",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)
_SPLIT = re.compile(r"-\d{5}-of-(\d{5})\.gguf$", re.IGNORECASE)
_NO_MODEL = re.compile(r"mmproj|imatrix", re.IGNORECASE)  # files beside models
_SHOWN_CHOICES = 12


@dataclass(frozen=True, slots=True)
class Reference:
    """What a user typed. quant: a quantization or the name of a file; empty when not said."""

    user: str
    repository: str
    quant: str

    def names(self) -> tuple[str, ...]:
        """Return the names that a model of this may have on the service, the likeliest first."""
        if self.quant:
            return (self.name(self.quant),)
        return tuple(self.name(quant) for quant in PREFERRED)

    def name(self, quant: str) -> str:
        """Return the model's name with this quantization, or of this file."""
        if quant.lower().endswith(".gguf"):
            return model_name(quant)
        base = re.sub(r"[-_.]gguf$", "", self.repository, flags=re.IGNORECASE)
        return f"{model_name(base)}-{quant.upper()}"[:MAX_NAME_CHARACTERS]


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the hub. name: for the model on the service."""

    name: str
    url: str


def parse(text: str) -> Reference | None:
    """Return the repository that a text names; None for what is none, as the URL of a file.

    Raises Refused for a text that begins as one does and has another form.
    """
    match = _REFERENCE.fullmatch(text)
    if match is not None:
        return Reference(match[1], match[2], match[3] or "")
    if _HALF.fullmatch(text):
        forms = "hf.co/USER/REPO, hf.co/USER/REPO:QUANT, hf.co/USER/REPO:FILE.gguf"
        raise Refused("INVALID_SOURCE", f"{text}: names no repository; the forms are {forms}")
    return None


def find(reference: Reference, *, fetcher: Fetcher | None = None) -> Found:
    """Ask the hub which file is meant. Raises Refused for none, and Failed."""
    base = os.environ.get(ENVIRONMENT, "").rstrip("/") or f"https://{HUGGING_FACE}"
    where = f"{reference.user}/{reference.repository}"
    files = _files(f"{base}/api/models/{where}", fetcher or Fetcher())
    file, quant = choose(files, reference)
    name = reference.name(quant) if quant else model_name(file)
    return Found(name, f"{base}/{where}/resolve/main/{quote(file)}")


def choose(files: list[str], reference: Reference) -> tuple[str, str]:
    """Return the file to take, and its quantization or "" when its name says none.

    Raises Refused where there is none, or no reason to take one of several.
    """
    where = f"{reference.user}/{reference.repository}"
    models = [f for f in files if f.lower().endswith(".gguf") and not _NO_MODEL.search(f)]
    whole = [f for f in models if not _SPLIT.search(f)]
    if not models:
        message = f'{where}: has no .gguf file; "llamad convert" makes one of a folder of weights'
        raise Refused("NOT_FOUND", message)
    for quant in (reference.quant,) if reference.quant else PREFERRED:
        matching = [f for f in whole if _is(f, quant)]
        if matching:
            is_file = quant.lower().endswith(".gguf")
            return min(matching, key=lambda f: (len(f), f)), "" if is_file else quant
    if not reference.quant and len(whole) == 1:
        return whole[0], ""
    split = [f for f in models if f not in whole and _is(_SPLIT.sub(".gguf", f), reference.quant)]
    if split and (reference.quant or not whole):
        parts = _SPLIT.search(split[0])
        assert parts is not None
        message = f"{where}: {split[0]} is one of {int(parts[1])} parts; only whole files are added"
        raise Refused("UNSUPPORTED_SOURCE", message)
    names = [f.rpartition("/")[2] for f in whole]
    shown = ", ".join(names[:_SHOWN_CHOICES]) + (", ..." if len(names) > _SHOWN_CHOICES else "")
    wanted = f"no file of {reference.quant}" if reference.quant else "no usual quantization"
    raise Refused("NOT_FOUND", f"{where}: {wanted}; it has {shown or 'only files in parts'}")


def _is(file: str, quant: str) -> bool:
    """Whether a file's name says that it has this quantization, or is it."""
    last = file.rpartition("/")[2].lower()
    stem, wanted = last.removesuffix(".gguf"), quant.lower()
    if not wanted:
        return True
    if last == wanted or stem == wanted:
        return True
    return stem.endswith(wanted) and stem[-len(wanted) - 1] in "-._"


def _files(url: str, fetcher: Fetcher) -> list[str]:
    """Return the names of a repository's files."""
    try:
        answer = fetcher.get(url, {"Accept": "application/json"})
    except Interrupted as error:
        raise Failed("DOWNLOAD_FAILED", str(error)) from None
    try:
        if answer.status in (401, 404):  # it says 401 for what does not exist, too
            hint = "; for one that is private, set HF_TOKEN"
            raise Refused("NOT_FOUND", f"{answer.url}: there is no such repository{hint}")
        if answer.status != 200:
            raise Failed("DOWNLOAD_FAILED", f"{answer.url}: the server answered {answer.status}")
        data = bytearray()
        while piece := _read(answer.body, answer.url):
            data += piece
            if len(data) > MAX_LIST_BYTES:
                message = f"{answer.url}: sends more than {MAX_LIST_BYTES} bytes"
                raise Failed("INVALID_ANSWER", message)
    finally:
        answer.body.close()
    return _parsed(bytes(data), answer.url)


def _read(body: Body, url: str) -> bytes:
    """Return the next bytes, none at the end. Raises Failed."""
    try:
        with network_errors(url, first_contact=True):
            return bytes(body.read1(1 << 16))
    except Interrupted as error:
        raise Failed("DOWNLOAD_FAILED", str(error)) from None


def _parsed(data: bytes, url: str) -> list[str]:
    """Return the ``rfilename`` of each of ``siblings``. Raises Failed for another answer."""
    try:
        siblings = json.loads(data)["siblings"]
        names = [sibling["rfilename"] for sibling in siblings]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Failed("INVALID_ANSWER", f"{url}: is no list of a repository's files") from None
    if not all(isinstance(name, str) and _plain(name) for name in names):
        raise Failed("INVALID_ANSWER", f"{url}: names a file that is no path")
    return names


def _plain(name: str) -> bool:
    parts = name.split("/")
    return name.isprintable() and not any(part in ("", ".", "..") for part in parts)
