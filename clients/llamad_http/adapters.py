"""Adapters (LoRA) as requests name them: llama-server's ``lora``, a list of ids and scales.

An id is the place of an adapter in ``GET /lora-adapters``: the loaded ones, by name. The service
takes one adapter a request, so all scales but one have to be 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llamad_client import Status
from llamad_http.errors import HttpError
from llamad_http.fields import Fields

FIELD = "lora"


@dataclass(frozen=True, slots=True)
class LoraScale:
    """An entry of the list."""

    id: int
    scale: float


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter of the loaded model, and how much of what it adds."""

    name: str
    scale: float = 1.0


def read_lora(body: Fields) -> Sequence[LoraScale] | None:
    """Return the list of a request; None where there is none. Raises HttpError."""
    if FIELD not in body:
        return None
    entries = []
    for one in body.objects(FIELD):
        number, scale = one.integer("id", 0), one.number("scale")
        if number is None or scale is None:
            raise one.wrong("id" if number is None else "scale", "is missing")
        entries.append(LoraScale(number, scale))
    return entries


def loaded_adapters(status: Status) -> list[str]:
    """Return the adapters that requests may name, each at the place of its id."""
    return [one.name for one in status.adapters if not one.fault]


def chosen(lora: Sequence[LoraScale], status: Status) -> Adapter | None:
    """Return the adapter that a list switches on; None where every scale is 0. Raises HttpError."""
    names = loaded_adapters(status)
    found: Adapter | None = None
    for n, entry in enumerate(lora):
        one = Fields({}, f"{FIELD}[{n}].")
        if entry.id >= len(names):
            raise one.wrong("id", f"is {entry.id}, there are {len(names)} adapters")
        if entry.scale != 0:
            if found is not None:
                raise one.wrong("scale", "must be 0: a request goes through one adapter")
            found = Adapter(names[entry.id], entry.scale)
    return found


def not_loaded(name: str, fault: str) -> HttpError:
    """Return the error for an adapter that requests may not name."""
    message = f"adapter {name!r} is not loaded: {fault or 'llamactl use of its model loads it'}"
    return HttpError(404, "ADAPTER_NOT_LOADED", message, field="model")
