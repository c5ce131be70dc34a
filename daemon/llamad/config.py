"""The configuration: sections as frozen dataclasses, read from TOML, overridden by flags.

Owns every key, its range and its default; ``packaging/etc/llamad.toml`` documents them for people
and a test compares the two. An unknown key, a wrong type or a value outside its range is an error
that names the file, the key and what is allowed. It opens nothing but the configuration file.
"""

import dataclasses
import logging
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from llamad.door.unix_socket import MAX_PATH_BYTES
from llamad.errors import ErrorKind, LlamadError
from llamad.logs import fields
from llamad.ranges import MAX_TEXT_BYTES, Boolean, Integer, Real
from llamad.sampling.parameters import Sampling
from llamad.template_arguments import THINKING, check_arguments

log = logging.getLogger(__name__)

DEFAULT_PATH = Path("/etc/llamad/llamad.toml")

# As the engine has them.
MAX_THREADS = 64
MAX_CTX_SIZE = 1 << 20  # tokens of one sequence

MODELS = "models"  # sections of which are by the names of models
OWNERS = "owners"  # sections of which are by the names of users
CLASSES = ("interactive", "normal", "batch")
PREFIXES = "prefixes"  # likewise, by the names of prefixes
NAMED = (MODELS, OWNERS, PREFIXES)
PREFIX_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
MAX_SYSTEM_BYTES = 64 << 10


class Rule(Protocol):
    """What one key allows."""

    def check(self, value: object) -> object:
        """Return the value in its final type; raise ValueError saying what is allowed."""

    def __str__(self) -> str:
        """Return what is allowed, as the default file and the errors say it."""


@dataclass(frozen=True, slots=True)
class Mode(Integer):
    """File permission bits."""

    def __str__(self) -> str:
        return f"0o{self.low:o}..0o{self.high:o}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def check(self, value: object) -> str:
        """Return the word."""
        if not isinstance(value, str) or value not in self.words:
            raise ValueError(f"must be {self}")
        return value

    def __str__(self) -> str:
        return " or ".join(f'"{word}"' for word in self.words)


@dataclass(frozen=True, slots=True)
class Text:
    """A string; ``what`` says what it means."""

    what: str
    max_bytes: int = 4096
    may_be_empty: bool = True

    def check(self, value: object) -> str:
        """Return the string; NUL bytes are refused, because names and paths end there."""
        if not isinstance(value, str):
            raise ValueError(f"must be a string: {self}")
        if "\0" in value or len(value.encode("utf-8", "surrogateescape")) > self.max_bytes:
            raise ValueError(f"must be at most {self.max_bytes} bytes without NUL")
        if not value and not self.may_be_empty:
            raise ValueError(f"must not be empty: {self}")
        return value

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True)
class FilePath(Text):
    """A path. It is used as it stands: there is no shell here that would expand ``~``."""

    def check(self, value: object) -> str:
        """Return the path."""
        path = Text.check(self, value)
        if path.startswith("~"):
            raise ValueError("~ is not expanded here: give the whole path")
        return path

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True)
class NumberOrAuto:
    """A whole number, or "auto"."""

    low: int
    high: int

    def check(self, value: object) -> int | None:
        """Return the number; None is auto."""
        if value is None or value == "auto":
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be {self}")
        if not self.low <= value <= self.high:
            raise ValueError(f"must be {self}")
        return value

    def __str__(self) -> str:
        return f'"auto" or {self.low}..{self.high}'


def _key(default: Any, rule: Rule) -> Any:
    return field(default=default, metadata={"rule": rule})


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """[service]: where clients connect."""

    socket: str = _key(
        "/run/llamad/llamad.sock",
        FilePath("path of the Unix socket", MAX_PATH_BYTES, may_be_empty=False),
    )
    socket_mode: int = _key(0o660, Mode(0o600, 0o777))
    socket_group: str = _key("", Text("group of the socket; empty: the service's own", 32))
    admin_group: str = _key(
        "llamad-admin", Text("group that may manage models and others' jobs; empty: none", 32)
    )
    gateway_group: str = _key(
        "llamad-gateway", Text("group that may ask on behalf of others; empty: none", 32)
    )
    state_directory: str = _key(
        "/var/lib/llamad", FilePath("where jobs and prefixes are stored", may_be_empty=False)
    )


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """[model]: which model, and what of the machine it may use."""

    path: str = _key(
        "", FilePath("file, or a name in directory; empty: the selected or the only one")
    )
    directory: str = _key(
        "/var/lib/llamad/models", FilePath("where models lie", may_be_empty=False)
    )
    threads: int = _key(0, Integer(0, MAX_THREADS))  # 0: as many CPUs as the service may use
    # Tokens of one sequence; None is auto: what memory allows (memory/context.py).
    ctx_size: int | None = _key(None, NumberOrAuto(32, MAX_CTX_SIZE))
    # Of a chat that is longer: leave out its oldest messages, unless the request says.
    context_full: str = _key("drop-oldest", Choice(("refuse", "drop-oldest")))
    kv_type: str = _key("f16", Choice(("f16", "q8_0", "q4_0")))
    n_sequences: int = _key(4, Integer(1, 256))  # decoded together
    kv_tokens: int = _key(0, Integer(0, 1 << 28))  # over all sequences; 0: what memory allows
    batch: int = _key(256, Integer(1, 4096))  # most rows of one step
    memory_budget: int | None = _key(None, NumberOrAuto(1 << 20, 1 << 50))  # bytes; None is auto
    lock: bool = _key(True, Boolean())
    huge_pages: str = _key("auto", Choice(("auto", "on", "off")))
    speculation: bool = _key(True, Boolean())  # of requests that do not say
    draft: str = _key(
        "", FilePath("a small model that guesses, file or name in directory; empty: none")
    )
    # By a layer of the model's own, where its file has one and there is no draft.
    multi_token_prediction: bool = _key(True, Boolean())


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """[queue]: how many wait, and how steps are cut."""

    capacity: int = _key(64, Integer(1, 10_000))
    step_seconds: float = _key(0.25, Real(0.01, 60.0))  # of one step, unless a row takes longer
    history: int = _key(100, Integer(0, 10_000))  # ended jobs that are remembered
    ageing_seconds: float = _key(60.0, Real(1.0, 86_400.0))  # of waiting that count as a class
    owner_jobs: int = _key(0, Integer(0, 10_000))  # that wait or run; 0: as many as there is room
    most_urgent: str = _key("interactive", Choice(CLASSES))  # that an owner may ask for


@dataclass(frozen=True, slots=True)
class JobsConfig:
    """[jobs]: submitted jobs, which are stored. Days and bytes."""

    capacity: int = _key(256, Integer(1, 100_000))  # stored jobs that have not ended
    keep_days: float = _key(7.0, Real(0.0, 3650.0))  # ended ones
    max_bytes: int = _key(64 << 20, Integer(1 << 20, 1 << 36))  # of all stored jobs
    write_bytes_per_day: int = _key(512 << 20, Integer(1 << 20, 1 << 40))  # for the disk's life


@dataclass(frozen=True, slots=True)
class PrefixCacheConfig:
    """[prefix_cache]: what of the beginnings of prompts may lie on the disk. Bytes."""

    max_bytes: int = _key(2 << 30, Integer(0, 1 << 50))  # of all models; 0: nothing is saved
    write_bytes_per_day: int = _key(2 << 30, Integer(0, 1 << 50))


@dataclass(frozen=True, slots=True)
class SamplingConfig(Sampling):
    """[sampling]: what a request gets that does not say, unless its model says something else."""

    loop_guard: bool = _key(True, Boolean())  # of requests without a sampling of their own


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """[limits]: what one client may cost. Bytes and seconds."""

    max_prompt_bytes: int = _key(MAX_TEXT_BYTES, Integer(1, MAX_TEXT_BYTES))
    stream_buffer_bytes: int = _key(1 << 20, Integer(4096, 1 << 26))
    default_deadline_seconds: float = _key(0.0, Real(0.0, 86_400.0))  # 0: none
    drain_seconds: float = _key(20.0, Real(0.0, 3600.0))
    max_model_bytes: int = _key(64 << 30, Integer(1 << 20, 1 << 50))  # of a model that is added


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """[metrics]: the file for the textfile collector of node_exporter."""

    textfile: str = _key("", FilePath("file that gets the metrics; empty: none"))
    period_seconds: float = _key(15.0, Real(1.0, 3600.0))  # between two times it is written


@dataclass(frozen=True, slots=True)
class LogConfig:
    """[log]: how much the journal gets."""

    level: str = _key("info", Choice(("debug", "info", "warning", "error")))


@dataclass(frozen=True, slots=True)
class Config:
    """Everything the service is told from outside."""

    service: ServiceConfig = field(default_factory=ServiceConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    queue: QueueConfig = field(default_factory=QueueConfig)
    jobs: JobsConfig = field(default_factory=JobsConfig)
    prefix_cache: PrefixCacheConfig = field(default_factory=PrefixCacheConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    log: LogConfig = field(default_factory=LogConfig)
    # [models.NAME]: what was written, by the model's name; keys of MODEL_KEYS.
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # [owners.NAME]: what was written, by the user's name; keys of OWNER_KEYS.
    owners: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # [prefixes.NAME]: one of the keys of prefix_rules().
    prefixes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    written: frozenset[str] = field(default=frozenset(), compare=False)  # "section.key", no default


# Keys of earlier versions: taken and without effect, so that an upgrade keeps the service running.
RETIRED: Mapping[str, str] = {
    "queue.prefill_chunk": "queue.step_seconds bounds a step, in time instead of tokens",
}

SECTIONS: Mapping[str, type[Any]] = {
    "service": ServiceConfig,
    "model": ModelConfig,
    "queue": QueueConfig,
    "jobs": JobsConfig,
    "prefix_cache": PrefixCacheConfig,
    "sampling": SamplingConfig,
    "limits": LimitsConfig,
    "metrics": MetricsConfig,
    "log": LogConfig,
}


def load_config(path: Path | None, overrides: Mapping[str, object] | None = None) -> Config:
    """Read a configuration file and apply flags over it.

    ``path`` None is the built-in defaults. ``overrides`` maps "section.key" to a value, which must
    have the key's type; they pass the same checks, and their errors name the flag's key. Raises
    LlamadError INVALID_CONFIG.
    """
    values: dict[str, dict[str, object]] = {name: {} for name in (*SECTIONS, *NAMED)}
    if path is not None:
        _merge(values, _read(path), str(path))
    for dotted, value in (overrides or {}).items():
        section, _, key = dotted.partition(".")
        _merge(values, {section: {key: value}}, "command line")
    written = frozenset(f"{name}.{key}" for name in SECTIONS for key in values[name])
    sections = {name: SECTIONS[name](**values[name]) for name in SECTIONS}
    models = cast(Mapping[str, Mapping[str, Any]], values[MODELS])
    owners = cast(Mapping[str, Mapping[str, Any]], values[OWNERS])
    prefixes = cast(Mapping[str, Mapping[str, str]], values[PREFIXES])
    config = Config(**sections, models=models, owners=owners, prefixes=prefixes, written=written)
    if config.model.batch < config.model.n_sequences:
        raise _error(
            f"model.batch = {config.model.batch}: must be at least model.n_sequences,"
            f" {config.model.n_sequences}: each sequence decodes one row of a step"
        )
    return config


@dataclass(frozen=True, slots=True)
class TemplateArguments:
    """A table of arguments for a chat template."""

    def check(self, value: object) -> dict[str, Any]:
        """Return the arguments."""
        if not isinstance(value, Mapping):
            raise ValueError(f"must be {self}")
        return check_arguments(value)

    def __str__(self) -> str:
        return "a table of names and values"


def model_rules() -> dict[str, Rule]:
    """Return the rule of every key of [models.NAME]."""
    return {
        "system": Text("the system message of a chat that has none", MAX_SYSTEM_BYTES),
        "ctx_size": NumberOrAuto(32, MAX_CTX_SIZE),
        "thinking": Choice(("on", "off", "template")),
        "template_arguments": TemplateArguments(),
        **rules("sampling"),
    }


OWNER_KEYS: Mapping[str, Rule] = {
    "jobs": Integer(0, 10_000),  # that wait or run; 0: as many as there is room for
    "most_urgent": Choice(CLASSES),
}


def _owner_section(name: str, entries: object, source: str) -> dict[str, object]:
    """Return what a section [owners.NAME] says, checked."""
    return _named_section(OWNERS, name, entries, OWNER_KEYS, source)


def _named_section(
    kind: str, name: str, entries: object, allowed: Mapping[str, Rule], source: str
) -> dict[str, object]:
    """Return what a section of something that has a name says, checked key by key."""
    shown = f'[{kind}."{name}"]'
    if not isinstance(entries, Mapping):
        raise _error(f"{source}: {kind}.{name} must be a section, {shown}")
    values = dict[str, object]()
    for key, value in entries.items():
        if key not in allowed:
            hint = " (a name with a dot stands in quotes)" if isinstance(value, Mapping) else ""
            raise _error(
                f"{source}: unknown key {key} in {shown}{hint}; there are {', '.join(allowed)}"
            )
        try:
            values[key] = allowed[key].check(value)
        except ValueError as error:
            raise _error(f"{source}: {key} = {value!r} in {shown}: {error}") from None
    return values


def _model_section(name: str, entries: object, source: str) -> dict[str, object]:
    """Return what a section [models.NAME] says, checked."""
    shown = f'[models."{name}"]'
    values = _named_section(MODELS, name, entries, model_rules(), source)
    arguments = cast(Mapping[str, object], values.get("template_arguments", {}))
    if values.get("thinking", "template") != "template" and THINKING in arguments:
        raise _error(f"{source}: {shown} has thinking and template_arguments.{THINKING}: give one")
    if values.get("ctx_size", 0) is None:
        values["ctx_size"] = "auto"
    return values


def prefix_rules() -> dict[str, Rule]:
    """Return the rule of every key of [prefixes.NAME]."""
    return {
        "system": Text("the system message that chats begin with", MAX_TEXT_BYTES),
        "file": FilePath("a file with that message", may_be_empty=False),
        "prompt": Text("what raw prompts begin with", MAX_TEXT_BYTES),
    }


def _prefix_section(name: str, entries: object, source: str) -> dict[str, object]:
    """Return what a section [prefixes.NAME] says, checked."""
    allowed = prefix_rules()
    if PREFIX_NAME.fullmatch(name) is None:
        raise _error(f"{source}: prefixes.{name}: a name has 1 to 64 of letters, digits and ._-")
    if not isinstance(entries, Mapping) or len(entries) != 1 or not entries.keys() <= set(allowed):
        raise _error(f"{source}: [prefixes.{name}] must have one of the keys {', '.join(allowed)}")
    ((key, value),) = entries.items()
    try:
        return {key: allowed[key].check(value)}
    except ValueError as error:
        raise _error(f"{source}: {key} in [prefixes.{name}]: {error}") from None


def rules(section: str) -> dict[str, Rule]:
    """Return the rule of every key of a section."""
    keys = dataclasses.fields(SECTIONS[section])
    return {f.name: cast(Rule, f.metadata["rule"]) for f in keys if "rule" in f.metadata}


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise _error(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _error(f"{path}: {error}") from error


def _merge(values: dict[str, dict[str, object]], given: Mapping[str, Any], source: str) -> None:
    for section, entries in given.items():
        if section in (MODELS, OWNERS) and isinstance(entries, Mapping):
            make = _model_section if section == MODELS else _owner_section
            for name, inner in entries.items():
                values[section][name] = make(name, inner, source)
            continue
        if section == PREFIXES and isinstance(entries, Mapping):
            for name, inner in entries.items():
                values[PREFIXES][name] = _prefix_section(name, inner, source)
            continue
        if section not in SECTIONS:
            names = ", ".join([*SECTIONS, *(f"{name}.NAME" for name in NAMED)])
            raise _error(f"{source}: unknown section [{section}]; there are {names}")
        if not isinstance(entries, Mapping):
            raise _error(f"{source}: {section} must be a section, [{section}]")
        allowed = rules(section)
        for key, value in entries.items():
            if (instead := RETIRED.get(f"{section}.{key}")) is not None:
                log.warning(
                    fields(
                        "key without effect", file=source, key=f"{section}.{key}", instead=instead
                    )
                )
                continue
            if key not in allowed:
                raise _error(
                    f"{source}: unknown key {section}.{key}; [{section}] has {', '.join(allowed)}"
                )
            try:
                values[section][key] = allowed[key].check(value)
            except ValueError as error:
                raise _error(f"{source}: {section}.{key} = {value!r}: {error}") from None


def _error(message: str) -> LlamadError:
    return LlamadError(ErrorKind.INVALID, "INVALID_CONFIG", message)
