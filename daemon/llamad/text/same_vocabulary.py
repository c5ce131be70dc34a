"""Whether two models speak of the same tokens, so that one can guess for the other."""

from collections.abc import Sequence
from typing import cast

from llamad.errors import ErrorKind, LlamadError
from llamad.printable import quoted
from llamad.text.vocabulary import PREFIX, Metadata

# Of tokens that only one of two vocabularies has, at its end: models of one family pad their
# embeddings to different lengths (Qwen 2.5: 151,936 and 152,064).
MAX_PADDING = 512


def check_vocabulary(
    name: str, metadata: Metadata, draft_name: str, draft_metadata: Metadata
) -> None:
    """Refuse a draft whose tokens are others than the model's, but for padding at the end.

    Raises DRAFT_REFUSED, naming both files and the first token that differs.
    """
    ours, theirs = _tokens(metadata), _tokens(draft_metadata)
    i = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if i is not None:
        raise _refused(
            f"{draft_name} has another vocabulary than {name}:"
            f" token {i} is {quoted(theirs[i])}, not {quoted(ours[i])}"
        )
    if abs(len(ours) - len(theirs)) > MAX_PADDING:
        raise _refused(
            f"{draft_name} has another vocabulary than {name}: {len(theirs)} tokens, not"
            f" {len(ours)}; at most {MAX_PADDING} more at the end of one are allowed"
        )


def _tokens(metadata: Metadata) -> Sequence[str]:
    return cast(Sequence[str], metadata.get(f"{PREFIX}tokens") or [])


def _refused(message: str) -> LlamadError:
    return LlamadError(ErrorKind.STATE, "DRAFT_REFUSED", message)
