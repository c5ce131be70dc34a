"""Sums over the inputs of every matrix of a model, for importance matrices."""

from collections.abc import Mapping

from llamad._engine import ffi, lib
from llamad.engine.bindings.handle import Handle
from llamad.engine.bindings.model import EngineModel
from llamad.engine.bindings.status import check

INPUT_MATRICES: Mapping[int, tuple[str, ...]] = {
    lib.LLD_IMPORTANCE_QKV: ("attn_q", "attn_k", "attn_v", "attn_qkv"),
    lib.LLD_IMPORTANCE_ATTN_OUTPUT: ("attn_output",),
    lib.LLD_IMPORTANCE_GATE_UP: ("ffn_gate", "ffn_up"),
    lib.LLD_IMPORTANCE_DOWN: ("ffn_down",),
}
"""The matrices that a layer may have, by the input that they share."""

OUTPUT_INPUT: int = lib.LLD_IMPORTANCE_OUTPUT
"""The input of the output matrix: kept rows only, in layer 0."""


class Importance(Handle):
    """Sums of the squares of what the matrices of a model are multiplied with."""

    def __init__(self, model: EngineModel, n_threads: int) -> None:
        out = ffi.new("lld_importance **")
        check(lib.lld_importance_create(model._c, n_threads, out))
        self._open(out[0], lib.lld_importance_destroy, model)

    def read(self, layer: int, input_id: int) -> "tuple[memoryview[float], int]":
        """Return (n_cols) float64 sums and the rows in them; no forward may be running."""
        n_cols = lib.lld_importance_cols(self._c, layer, input_id)
        sums, n_rows = ffi.new("double[]", n_cols), ffi.new("uint64_t *")
        check(lib.lld_importance_read(self._c, layer, input_id, sums, n_cols, n_rows))
        return memoryview(ffi.buffer(sums)).cast("d"), n_rows[0]
