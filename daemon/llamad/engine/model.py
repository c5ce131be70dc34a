"""A model for scripts and tests: a tokenizer, a chat template and logits as numpy arrays.

Owns one engine with one sequence. The service does not use it: it has a scheduler.
"""

import os
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from llamad.engine.bindings import Engine, EngineModel
from llamad.engine.single_sequence import SingleSequence
from llamad.errors import invalid
from llamad.text import ChatTemplate, tokenizer_from_metadata
from llamad.text.tools.call import Tool

LOGITS_ROWS = 32  # rows of logits kept by one forward: vocab_size * 4 bytes each


class Model:
    """An open model. Not for several threads at once."""

    def __init__(
        self,
        path: str | PathLike[str],
        n_threads: int | None = None,
        *,
        n_ctx: int | None = None,
        n_batch: int = 256,
        kv_type: str = "f16",
        cpu: str | None = None,
    ) -> None:
        """Open a GGUF file.

        n_ctx: most tokens of one text; by default the model's own, at most 8192. cpu: kernel
        sets that may be used, as in ``LLAMAD_CPU``. Raises LlamadError naming the file.
        """
        self._model = EngineModel(path)
        self.info = self._model.info
        metadata = self._model.metadata()
        self.tokenizer = tokenizer_from_metadata(metadata)
        self.chat_template = ChatTemplate.from_metadata(metadata, self.tokenizer)
        self.n_ctx = n_ctx if n_ctx is not None else min(self.info.n_ctx_train, 8192)
        self.engine = Engine(
            self._model,
            n_threads=n_threads if n_threads is not None else len(os.sched_getaffinity(0)),
            n_ctx=self.n_ctx,
            n_batch=n_batch,
            n_logits=min(LOGITS_ROWS, n_batch),
            kv_type=kv_type,
            cpu=cpu,
        )

    def tokenize(
        self, text: str, add_bos: bool | None = None, parse_special: bool = False
    ) -> list[int]:
        """Return the token ids of a text; add_bos None does as the model's metadata says."""
        return self.tokenizer.encode(text, add_bos, parse_special)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        return self.tokenizer.decode(ids)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **template_arguments: Any,
    ) -> str:
        """Return a conversation as the model's chat template writes it.

        tools: each with ``name``, ``description`` and ``parameters``, a JSON Schema. More arguments
        are variables of the template, as ``enable_thinking``.
        """
        offered = [
            Tool(tool["name"], tool.get("description", ""), tool.get("parameters") or {})
            for tool in tools or ()
        ]
        return self.chat_template.render(
            messages, add_generation_prompt, template_arguments, offered
        )

    def logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the next-token logits after every token: (n_tokens, vocab_size) float32.

        Raises LlamadError when tokens is empty, too long or holds an id outside the vocabulary.
        """
        if not 1 <= len(tokens) <= self.n_ctx:
            raise invalid("tokens", f"text has {len(tokens)} tokens, must be 1 to {self.n_ctx}")
        result = np.empty((len(tokens), self.info.vocab_size), dtype=np.float32)
        sequence = SingleSequence(self.engine)
        step = self.engine.n_logits
        for start in range(0, len(tokens), step):
            part = tokens[start : start + step]
            sequence.feed(part, len(part))
            for i in range(len(part)):
                result[start + i] = np.asarray(self.engine.logits(i), dtype=np.float32)
        return result

    def close(self) -> None:
        """Free the engine, unmap the file, end the chat template's process."""
        self.chat_template.close()
        self.engine.close()
        self._model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
