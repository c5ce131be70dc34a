"""The keys of a sequence's full blocks: a hash chain over its tokens, begun with a scope.

A block's keys and values depend on every token up to its end and on nothing else. So its key is a
hash of the key before it and of its own tokens: the same key means the same bits. What goes through
an adapter has other bits, so its scopes are of their own: they end with the digest of its file and
the scale. The first key hashes the *scope* instead: blocks are found by sequences of the same scope
only. There is one scope for each owner, and a public one for pinned prefixes. How long a prompt
takes therefore tells a user what was pinned for everybody and what he asked himself, never what
somebody else asked.
"""

import hashlib
from array import array
from collections.abc import Sequence

from llamad.jobs.request import AdapterChoice, GenerationRequest

KEY_BYTES = 16
PUBLIC = b"public"


def scope_of(request: GenerationRequest) -> bytes:
    """Return the scope of a request's owner; the public one where it is for everybody."""
    if request.for_everybody:
        return public_scope(request)
    return owner_scope(request.owner) + _adapter_scope(request.adapter)


def public_scope(request: GenerationRequest) -> bytes:
    """Return the scope of what everybody may read for such a request."""
    return PUBLIC + _adapter_scope(request.adapter)


def _adapter_scope(adapter: AdapterChoice | None) -> bytes:
    if adapter is None:
        return b""
    return f"\0adapter:{adapter.digest}:{adapter.scale.hex()}".encode()


def owner_scope(owner: str) -> bytes:
    """Return the scope of an owner."""
    return f"owner:{owner}".encode()


class BlockKeys:
    """The keys of one sequence's blocks in one scope; each is hashed once, when asked for."""

    def __init__(self, scope: bytes) -> None:
        self.scope = scope
        self._begin = _hash(scope)
        self._keys: list[bytes] = []

    def get(self, index: int, tokens: Sequence[int], block_tokens: int) -> bytes:
        """Return the key of block ``index``, which the tokens fill.

        tokens: of the sequence, from its first on; only appended to since the last call.
        """
        keys = self._keys
        while len(keys) <= index:
            begin = len(keys) * block_tokens
            block = array("i", tokens[begin : begin + block_tokens])
            assert len(block) == block_tokens, "a block that is not full has no key"
            keys.append(_hash(block.tobytes(), keys[-1] if keys else self._begin))
        return keys[index]


def _hash(data: bytes, before: bytes = b"") -> bytes:
    return hashlib.blake2b(data, digest_size=KEY_BYTES, key=before).digest()
