"""What a model in memory and its draft tell of their engines, for schedule/runtime.py."""

from llamad.engine.bindings import Engine


class EngineSizes:
    """The sizes of ``engine``, which a subclass has. Tokens, rows and blocks."""

    __slots__ = ()
    engine: Engine

    @property
    def vocab_size(self) -> int:
        """Token ids that it can read are 0..vocab_size-1."""
        return self.engine.vocab_size

    @property
    def n_ctx(self) -> int:
        """Most tokens of one sequence."""
        return self.engine.n_ctx

    @property
    def n_batch(self) -> int:
        """Most rows of one step."""
        return self.engine.n_batch

    @property
    def kv_block_tokens(self) -> int:
        """Tokens of one KV block."""
        return self.engine.block_tokens

    @property
    def kv_blocks_total(self) -> int:
        """KV blocks of the engine."""
        return self.engine.n_blocks

    @property
    def kv_local_blocks(self) -> int:
        """Blocks of layers with a window; 0: there are no such layers."""
        return self.engine.n_local_blocks

    @property
    def kv_window(self) -> int:
        """Tokens that such a layer sees, their own included; 0: there are none."""
        return self.engine.kv_window
