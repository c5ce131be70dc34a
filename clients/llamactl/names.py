"""From what a user calls a model to its name on the service.

Owns the rule: a name that the service has is meant as it is; else a name or alias of the catalogue
means the model that ``llamactl pull`` puts under the catalogue's name; where the service does not
have that, its user hears how to get it. A name that is neither stays as it is, and the service says
that it has none.
"""

from collections.abc import Collection

from llamactl.catalogue import Entry, read_catalogue
from llamactl.output import bytes_text
from llamad_client import Client, ClientError, Refused


def catalogue_entry(text: str) -> Entry | None:
    """Return what the catalogue knows under a name or alias; None without one, or a catalogue."""
    try:
        return read_catalogue().find(text)
    except ClientError:
        return None


def meant(text: str, installed: Collection[str]) -> str:
    """Return the name of an installed model that the text means; the text itself if none."""
    if text in installed:
        return text
    entry = catalogue_entry(text)
    return entry.name if entry is not None and entry.name in installed else text


def service_name(client: Client, text: str) -> str:
    """Return the name on the service; asks it only where the catalogue knows the text.

    Raises Refused for a model of the catalogue that the service does not have.
    """
    entry = catalogue_entry(text)
    if entry is None:
        return text
    installed = {model.name for model in client.models()}
    name = meant(text, installed)
    if name not in installed:
        size = bytes_text(entry.file_bytes)
        message = f'{text}: is not here yet: "llamactl pull {text}" fetches it ({size})'
        raise Refused("MODEL_NOT_FOUND", message)
    return name
