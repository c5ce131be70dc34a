"""What a request of a model gets where it does not say, and who said so.

Owns the order: the section [models.NAME] of the configuration, the model's file, what was said to
be recommended when it was added, the section [sampling] and its like, the built-in defaults. A key
of the configuration counts only when somebody wrote it. Pure: values in, values out.
"""

import enum
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

from llamad.config import Config
from llamad.gguf.value import MetadataValue
from llamad.logs import fields
from llamad.ranges import Integer
from llamad.sampling.parameters import PARAMETERS, Sampling
from llamad.template_arguments import THINKING

log = logging.getLogger(__name__)

# Of gguf-py's constants, as llama.cpp reads them, and ours.
FILE_KEYS: Mapping[str, str] = {
    "temperature": "general.sampling.temp",
    "top_k": "general.sampling.top_k",
    "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p",
    "repeat_penalty": "general.sampling.penalty_repeat",
    "repeat_last_n": "general.sampling.penalty_last_n",
    "xtc_probability": "general.sampling.xtc_probability",
    "xtc_threshold": "general.sampling.xtc_threshold",
    "mirostat": "general.sampling.mirostat",
    "mirostat_tau": "general.sampling.mirostat_tau",
    "mirostat_eta": "general.sampling.mirostat_eta",
}


class Source(enum.Enum):
    """Who said what a setting is, strongest first."""

    MODEL_SECTION = "model_section"
    MODEL_FILE = "model_file"
    RECOMMENDED = "recommended"
    CONFIGURATION = "configuration"
    BUILT_IN = "built_in"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting; value: of JSON's types."""

    name: str
    value: Any
    source: Source


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """All settings of one model, each once."""

    settings: tuple[Setting, ...]

    def value(self, name: str) -> Any:
        """Return the value of a setting."""
        return next(setting.value for setting in self.settings if setting.name == name)

    @property
    def sampling(self) -> Sampling:
        """What a request gets that names no parameter."""
        return Sampling(**{name: self.value(name) for name in (*PARAMETERS, "penalize_prompt")})

    @property
    def template_arguments(self) -> dict[str, Any]:
        """The arguments of the chat template, thinking among them."""
        arguments = dict(cast(Mapping[str, Any], self.value("template_arguments")))
        thinking = self.value("thinking")
        return arguments if thinking == "template" else {**arguments, THINKING: thinking == "on"}


def settings_of(
    config: Config,
    name: str,
    own: Mapping[str, float],
    recommended: Mapping[str, float] = MappingProxyType({}),
) -> ModelSettings:
    """Return the settings of the model of this name.

    own: what its file says, ``own_sampling``. recommended: ``recommended_sampling``.
    """
    section = config.models.get(name, {})
    settings = [
        _first(
            key,
            (section.get(key), Source.MODEL_SECTION),
            (own.get(key), Source.MODEL_FILE),
            (recommended.get(key), Source.RECOMMENDED),
            (_written(config, "sampling", key), Source.CONFIGURATION),
            (getattr(config.sampling, key), Source.BUILT_IN),
        )
        for key in (*PARAMETERS, "penalize_prompt", "loop_guard")
    ]
    built_in = {"system": "", "thinking": "template", "template_arguments": {}}
    settings += [
        _first(key, (section.get(key), Source.MODEL_SECTION), (value, Source.BUILT_IN))
        for key, value in built_in.items()
    ]
    settings += [
        _first(
            "ctx_size",
            (section.get("ctx_size"), Source.MODEL_SECTION),
            (_written(config, "model", "ctx_size"), Source.CONFIGURATION),
            ("auto", Source.BUILT_IN),
        )
    ]
    return ModelSettings(tuple(settings))


def _written(config: Config, section: str, key: str) -> Any:
    """Return a key's value where somebody wrote it; None where it is a default."""
    return getattr(getattr(config, section), key) if f"{section}.{key}" in config.written else None


def _first(name: str, *candidates: tuple[Any, Source]) -> Setting:
    value, source = next(candidate for candidate in candidates if candidate[0] is not None)
    return Setting(name, value, source)


def ctx_sizes(config: Config) -> dict[str, int | None]:
    """Return the contexts that models have of their own, in tokens; None is auto."""
    given = {name: section.get("ctx_size") for name, section in config.models.items()}
    return {name: None if n == "auto" else n for name, n in given.items() if n is not None}


def own_sampling(name: str, metadata: Mapping[str, MetadataValue]) -> dict[str, float]:
    """Return the sampling that a model's file asks for; what is not allowed is left out, and said.

    name: of the model, for the journal.
    """
    given = [(key, parameter, metadata.get(key)) for parameter, key in FILE_KEYS.items()]
    return dict(_allowed(name, "sampling of the file not used", given))


def recommended_sampling(name: str, values: Mapping[str, object]) -> dict[str, float]:
    """Return the recommended sampling that is allowed; what is not is left out, and said.

    name: of the model, for the journal.
    """
    known = [(key, key, value) for key, value in values.items() if key in PARAMETERS]
    return dict(_allowed(name, "recommended sampling not used", known))


def _allowed(
    name: str, complaint: str, given: Iterable[tuple[str, str, object]]
) -> Iterator[tuple[str, float]]:
    """Yield parameters and values; given: the key that the journal names, parameter, value."""
    for key, parameter, value in given:
        if value is None:
            continue
        try:
            yield parameter, PARAMETERS[parameter].check(_number(parameter, value))
        except ValueError as error:
            log.warning(fields(complaint, model=name, key=key, message=str(error)))


def _number(parameter: str, value: object) -> object:
    """Return a number of a file as the table has it: float32 in short, top_k below 0 as off."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return value
    if isinstance(PARAMETERS[parameter].range, Integer):
        whole = int(value) if value == int(value) else value
        return max(whole, 0 if parameter == "top_k" else -1)
    return float(f"{value:.7g}")
