"""Sums over the inputs of every matrix of a model, for importance matrices."""

from collections.abc import Mapping

from llamad._engine import ffi, lib
from llamad.engine.bindings.handle import Handle
from llamad.engine.bindings.model import EngineModel
from llamad.engine.bindings.status import check

INPUT_MATRICES: Mapping[int, tuple[str, ...]] = {
    lib.LLD_IMPORTANCE_QKV: (
        *("attn_q", "attn_k", "attn_v", "attn_qkv", "attn_gate"),
        *("shortconv.in_proj", "ssm_in", "ssm_alpha", "ssm_beta"),
    ),
    lib.LLD_IMPORTANCE_ATTN_OUTPUT: ("attn_output", "shortconv.out_proj", "ssm_out"),
    lib.LLD_IMPORTANCE_GATE_UP: ("ffn_gate", "ffn_up", "ffn_gate_shexp", "ffn_up_shexp"),
    lib.LLD_IMPORTANCE_DOWN: ("ffn_down", "ffn_down_shexp"),
    lib.LLD_IMPORTANCE_EXPERTS_GATE_UP: ("ffn_gate_exps", "ffn_up_exps", "ffn_gate_up_exps"),
    lib.LLD_IMPORTANCE_EXPERTS_DOWN: ("ffn_down_exps",),
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

    def read(self, layer: int, input_id: int) -> "tuple[memoryview[float], list[int]]":
        """Return the sums of each matrix and the rows in them; no forward may be running.

        Sums: (n_matrices, n_cols) float64, flat; rows: (n_matrices). Of experts each is a matrix;
        an input that the layer has not has none.
        """
        n_matrices = lib.lld_importance_matrices(self._c, layer, input_id)
        n_cols = lib.lld_importance_cols(self._c, layer, input_id)
        sums = ffi.new("double[]", n_matrices * n_cols)
        n_rows = ffi.new("uint64_t[]", n_matrices)
        for i in range(n_matrices):
            of_matrix = sums + i * n_cols, n_cols, n_rows + i
            check(lib.lld_importance_read(self._c, layer, input_id, i, *of_matrix))
        return memoryview(ffi.buffer(sums)).cast("d"), list(n_rows)
