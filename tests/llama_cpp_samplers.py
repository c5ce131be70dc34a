"""Samplers of llama.cpp as a peer, through ctypes: from logits to those of the tokens that stay.

Like ``llama_cpp.py``, of the PyPI package ``xllamacpp``; a chain of ``llama_sampler_init_*``, each
applied to all logits.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_cpp import LlamaCpp, open_library
from llamad.sampling.parameters import SAMPLERS, Sampling


class _Token(ctypes.Structure):
    """``llama_token_data``."""

    _fields_ = (("id", ctypes.c_int32), ("logit", ctypes.c_float), ("p", ctypes.c_float))


class _Tokens(ctypes.Structure):
    """``llama_token_data_array``."""

    _fields_ = (
        ("data", ctypes.POINTER(_Token)),
        ("size", ctypes.c_size_t),
        ("selected", ctypes.c_int64),
        ("sorted", ctypes.c_bool),
    )


class PeerSamplers:
    """The samplers of llama.cpp that a sampling means, in its order."""

    def __init__(self, sampling: Sampling, vocab_size: int, peer: LlamaCpp | None = None) -> None:
        """peer: whose vocabulary DRY's breakers are looked for in."""
        self._library = library = open_library()
        for name in ("apply", "accept", "free"):
            getattr(library, f"llama_sampler_{name}").restype = None
        p, f, u = sampling, ctypes.c_float, ctypes.c_size_t
        one: dict[str, tuple[Any, ...]] = {
            "penalties": ("penalties", vocab_size, p.repeat_last_n, f(p.repeat_penalty),
                          f(p.frequency_penalty), f(p.presence_penalty)),
            "top_n_sigma": ("top_n_sigma", f(p.top_n_sigma)),
            "top_k": ("top_k", p.top_k),
            "typ_p": ("typical", f(p.typical_p), u(1)),
            "top_p": ("top_p", f(p.top_p), u(1)),
            "min_p": ("min_p", f(p.min_p), u(1)),
            "xtc": ("xtc", f(p.xtc_probability), f(p.xtc_threshold), u(1), ctypes.c_uint32(1)),
            "temperature": ("temp_ext", f(p.temperature), f(p.dynatemp_range),
                            f(p.dynatemp_exponent)),
        }  # fmt: skip
        if peer is not None:
            texts = [text.encode() for text in p.dry_sequence_breakers if text]
            one["dry"] = ("dry", ctypes.c_void_p(peer.vocab), f(p.dry_multiplier), f(p.dry_base),
                          p.dry_allowed_length, p.dry_penalty_last_n,
                          (ctypes.c_char_p * len(texts))(*texts), u(len(texts)))  # fmt: skip
        names = [name for name in p.samplers or SAMPLERS if name in one]
        calls = [one[name] for name in names]
        if p.mirostat:
            rates = f(p.mirostat_tau), f(p.mirostat_eta)
            calls = [("temp", f(p.temperature))]
            if p.mirostat == 1:
                calls += [("mirostat", vocab_size, ctypes.c_uint32(1), *rates, 100)]
            else:
                calls += [("mirostat_v2", ctypes.c_uint32(1), *rates)]
        self._samplers = [self._init(name, *arguments) for name, *arguments in calls]

    def _init(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        function = getattr(self._library, f"llama_sampler_init_{name}")
        function.restype = ctypes.c_void_p
        return ctypes.c_void_p(function(*arguments))

    def accept(self, tokens: Sequence[int]) -> None:
        """Tell the samplers of tokens."""
        for token in tokens:
            for sampler in self._samplers:
                self._library.llama_sampler_accept(sampler, ctypes.c_int32(token))

    def apply(self, logits: NDArray[np.float32]) -> tuple[NDArray[np.float64], int]:
        """Return the logits that are left, else minus infinity; and the chosen token, if any."""
        items = (_Token * len(logits))(*(_Token(i, x, 0) for i, x in enumerate(logits.tolist())))
        tokens = _Tokens(items, len(items), -1, False)
        for sampler in self._samplers:
            self._library.llama_sampler_apply(sampler, ctypes.byref(tokens))
        out = np.full(len(logits), -np.inf)
        for i in range(tokens.size):
            out[tokens.data[i].id] = tokens.data[i].logit
        selected = tokens.data[tokens.selected].id if tokens.selected >= 0 else -1
        return out, selected

    def close(self) -> None:
        """Free them."""
        for sampler in self._samplers:
            self._library.llama_sampler_free(sampler)
