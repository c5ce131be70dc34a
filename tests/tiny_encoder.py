"""Write seeded tiny encoders, BERT's kinds: every tensor of theirs, in kilobytes."""

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from unit.text.vocabularies import WORD_PIECES, wordpiece_metadata

ENCODERS = ("bert", "nomic-bert")
TABLES = ("token_types.weight", "position_embd.weight")  # F32, as converters write them
ENCODER_SHAPES = ((64, 96, 2, 4), (96, 160, 3, 3), (128, 224, 2, 2))  # the first fields of one


@dataclass(frozen=True, slots=True)
class TinyEncoder:
    """The shape of one. The vocabulary is that of the tests of WordPiece, and then some."""

    architecture: str = "bert"  # or nomic-bert
    dim: int = 64
    hidden_dim: int = 96
    n_layers: int = 2
    n_heads: int = 4
    n_ctx: int = 512
    weight_type: str = "F32"  # of all matrices
    pooling: int = 1  # GGUF's pooling_type: mean; 4: of a model that ranks
    rank_scores: int = 0  # of one that ranks
    rank_dense: bool = True
    seed: int = 1

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return 4 + len(WORD_PIECES)

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Return (rows, columns) of every matrix by name."""
        shapes = {
            "token_embd.weight": (self.vocab_size, self.dim),
            "token_types.weight": (2, self.dim),
        }
        if self.architecture == "bert":
            shapes["position_embd.weight"] = (self.n_ctx, self.dim)
        for i in range(self.n_layers):
            layer = f"blk.{i}."
            if self.architecture == "bert":
                for name in ("attn_q", "attn_k", "attn_v"):
                    shapes[f"{layer}{name}.weight"] = (self.dim, self.dim)
            else:
                shapes[f"{layer}attn_qkv.weight"] = (3 * self.dim, self.dim)
                shapes[f"{layer}ffn_gate.weight"] = (self.hidden_dim, self.dim)
            shapes[f"{layer}attn_output.weight"] = (self.dim, self.dim)
            shapes[f"{layer}ffn_up.weight"] = (self.hidden_dim, self.dim)
            shapes[f"{layer}ffn_down.weight"] = (self.dim, self.hidden_dim)
        return shapes

    def write(self, path: Path) -> Path:
        """Write the file."""
        rng = np.random.default_rng(self.seed)
        writer = gguf.GGUFWriter(path, self.architecture)
        writer.add_block_count(self.n_layers)
        writer.add_context_length(self.n_ctx)
        writer.add_embedding_length(self.dim)
        writer.add_feed_forward_length(self.hidden_dim)
        writer.add_head_count(self.n_heads)
        writer.add_layer_norm_eps(1e-12)
        writer.add_causal_attention(False)
        writer.add_pooling_type(gguf.PoolingType(self.pooling))
        if self.architecture != "bert":
            writer.add_rope_freq_base(1000.0)
        self._add_vocabulary(writer)
        kind = gguf.GGMLQuantizationType[self.weight_type]
        for name, (n_rows, n_cols) in self.matrices().items():
            values = rng.standard_normal((n_rows, n_cols)).astype(np.float32)
            values *= 1.0 if "embd" in name or "types" in name else 1.5 / np.sqrt(n_cols)
            used = gguf.GGMLQuantizationType.F32 if name in TABLES else kind
            writer.add_tensor(name, gguf.quants.quantize(values, used), raw_dtype=used)
            if self.architecture == "bert" and name.startswith("blk."):
                bias = 0.3 * rng.standard_normal(n_rows).astype(np.float32)
                writer.add_tensor(name.replace("weight", "bias"), bias)
        if self.rank_scores:
            self._add_rank(writer, rng, kind)
        norms = ["token_embd_norm"]
        for i in range(self.n_layers):
            norms += [f"blk.{i}.attn_output_norm", f"blk.{i}.layer_output_norm"]
        for name in norms:
            weight = 1 + 0.2 * rng.standard_normal(self.dim)
            writer.add_tensor(f"{name}.weight", weight.astype(np.float32))
            bias = 0.2 * rng.standard_normal(self.dim).astype(np.float32)
            writer.add_tensor(f"{name}.bias", bias)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def _add_rank(
        self, writer: gguf.GGUFWriter, rng: np.random.Generator, kind: gguf.GGMLQuantizationType
    ) -> None:
        """Add a classifier's head, whose last matrix is small and stays F32."""
        for name, n_rows in (("cls", self.dim), ("cls.output", self.rank_scores)):
            if name == "cls" and not self.rank_dense:
                continue
            values = rng.standard_normal((n_rows, self.dim)).astype(np.float32) / 8
            used = kind if name == "cls" else gguf.GGMLQuantizationType.F32
            writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, used), raw_dtype=used)
            writer.add_tensor(f"{name}.bias", rng.standard_normal(n_rows).astype(np.float32))

    def _add_vocabulary(self, writer: gguf.GGUFWriter) -> None:
        metadata = wordpiece_metadata()
        writer.add_tokenizer_model("bert")
        writer.add_token_list(metadata["tokenizer.ggml.tokens"])
        writer.add_token_types(metadata["tokenizer.ggml.token_type"])
        writer.add_token_type_count(2)
        for key in ("unknown", "cls", "seperator"):
            name = f"tokenizer.ggml.{key}_token_id"
            writer.add_uint32(name, metadata[name])
