"""What an answer must look like, as a request says it: plain data, stored with a durable job.

What a format means, and whether it is right, is sampling/constraint's.
"""

import enum
import hashlib
from dataclasses import dataclass

MAX_FORMAT_BYTES = 256 << 10  # of a schema, a grammar, a regular expression or all choices
MAX_CHOICES = 1024


class FormatKind(enum.Enum):
    """How a format is written."""

    JSON_SCHEMA = "json_schema"
    GRAMMAR = "grammar"  # GBNF
    REGEX = "regex"
    CHOICES = "choices"
    JSON_OBJECT = "json_object"


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """A format; what its kind does not need is empty."""

    kind: FormatKind
    text: str = ""  # the schema as JSON, the grammar, the regular expression
    choices: tuple[str, ...] = ()
    closed_objects: bool = False  # of a schema: they have no members that it does not name

    @property
    def n_bytes(self) -> int:
        """About how much text there is to compile: its characters, at least."""
        return len(self.text) + sum(len(choice) for choice in self.choices)

    @property
    def digest(self) -> bytes:
        """A name for what it says."""
        parts = (self.kind.value, self.closed_objects, self.text, *self.choices)
        return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).digest()
