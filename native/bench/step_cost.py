"""Compute what one step costs on a Raspberry Pi 4 and 5: the tables of docs/step-cost.md.

Owns the formula and its constants, nothing that is measured here. The cycles are llvm-mca's (`make
mca`, RESULTS.md), the bandwidths are those the page cites. Attention and barriers are left out of
the step's arithmetic; attention has a table of its own.

Run it as ``.venv/bin/python native/bench/step_cost.py``.
"""

from dataclasses import dataclass

from llamad.engine.bindings import row_bytes
from llamad_tools.quantize.mixes import MIXES, MixedModel, tensor_type

FLOAT_MACS_PER_CYCLE = 4  # one 128-bit fused multiply-add a cycle, converting keys not counted
ROWS = (1, 4, 5, 8, 16, 32, 128, 256)
BUDGET_MS = 250.0


@dataclass(frozen=True, slots=True)
class Board:
    """A board; cycles: type -> cycles a weight of one row, cycles a multiply-add of many rows."""

    name: str
    hertz: float  # of each of four cores
    bytes_per_second: float
    pads: bool  # after a first four, tiles are of four rows only
    cycles: dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's shape."""

    name: str
    n_layers: int
    dim: int
    hidden_dim: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    tied_output: bool = False


BOARDS = (
    Board("Pi 4", 1.5e9, 4.5e9, False, {
        "Q4_0": (0.177, 0.139), "Q4_K": (0.202, 0.165), "Q5_K": (0.282, 0.182),
        "Q6_K": (0.301, 0.179),
    }),
    Board("Pi 5", 2.4e9, 10.2e9, True, {
        "Q4_0": (0.126, 0.052), "Q4_K": (0.141, 0.061), "Q5_K": (0.207, 0.063),
        "Q6_K": (0.246, 0.059),
    }),
)  # fmt: skip
SHAPES = (
    Shape("1.1B (TinyLlama)", 22, 2048, 5632, 32, 4, 64, 32000),
    Shape("3B (Llama 3.2)", 28, 3072, 8192, 24, 8, 128, 128256, tied_output=True),
    Shape("7B (LLaMA)", 32, 4096, 11008, 32, 32, 128, 32000),
)


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix of the model; levels: int8 levels of its input, of which attn_v's has two."""

    type_name: str
    n_weights: int
    n_bytes: int
    levels: int
    is_output: bool


def matrices(shape: Shape, mix: str) -> list[Matrix]:
    """Return every matrix that a step reads, with the type that the mix gives it."""
    model = MixedModel(
        shape.n_layers, gqa=shape.n_heads // shape.n_kv_heads, tied_output=shape.tied_output
    )
    n_q, n_kv = shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim
    layer = {
        "attn_q": (shape.dim, n_q), "attn_k": (shape.dim, n_kv), "attn_v": (shape.dim, n_kv),
        "attn_output": (n_q, shape.dim), "ffn_gate": (shape.dim, shape.hidden_dim),
        "ffn_up": (shape.dim, shape.hidden_dim), "ffn_down": (shape.hidden_dim, shape.dim),
    }  # fmt: skip
    named = {
        f"blk.{i}.{name}.weight": size
        for i in range(shape.n_layers)
        for name, size in layer.items()
    }
    output = "token_embd.weight" if shape.tied_output else "output.weight"
    named[output] = (shape.dim, shape.vocab_size)
    found: list[Matrix] = []
    for name, size in named.items():
        type_name = tensor_type(MIXES[mix], name, size, model)
        n_bytes = row_bytes(type_name, size[0]) * size[1]
        levels = 2 if name == output or "attn_v" in name else 1
        found.append(Matrix(type_name, size[0] * size[1], n_bytes, levels, name == output))
    return found


def cycles_of(board: Board, type_name: str, rows: int) -> float:
    """Return the cycles of one weight times `rows` rows."""
    one, many = board.cycles[type_name]
    fours, rest = divmod(rows, 4)
    if rest == 3 or (board.pads and fours > 0 and rest > 0):
        fours, rest = fours + 1, 0  # the tile's last row is repeated
    return 4 * many * fours + (one + many * (rest - 1) if rest else 0.0)


def step_ms(board: Board, model: list[Matrix], rows: int, kept: int = 1) -> tuple[float, float]:
    """Return the milliseconds for memory and for arithmetic; kept: rows whose logits are made."""
    n_bytes = sum(matrix.n_bytes for matrix in model)
    cycles = sum(
        m.n_weights * cycles_of(board, m.type_name, m.levels * (kept if m.is_output else rows))
        for m in model
    )
    return 1e3 * n_bytes / board.bytes_per_second, 1e3 * cycles / (4 * board.hertz)


def print_steps() -> None:
    """Print the step's milliseconds by rows; decode rows keep logits, prompt rows one of all."""
    heads = " | ".join(str(rows) for rows in ROWS)
    for board in BOARDS:
        print(f"\n| {board.name} | bytes | {heads} | rows in {BUDGET_MS:.0f} ms |")
        print("|---" * (len(ROWS) + 3) + "|")
        for shape in SHAPES:
            for mix in ("Q4_0", "Q4_K_M"):
                model = matrices(shape, mix)
                costs = [
                    step_ms(board, model, rows, kept=rows if rows <= 8 else 1) for rows in ROWS
                ]
                cells = [
                    f"{max(cost):.0f} ({max(cost) / rows:.0f}){'*' if cost[1] > cost[0] else ''}"
                    for rows, cost in zip(ROWS, costs, strict=True)
                ]
                fitting = [r for r in range(1, 257) if max(step_ms(board, model, r)) <= BUDGET_MS]
                total = sum(matrix.n_bytes for matrix in model) / 1e9
                most = max(fitting, default=0)
                print(
                    f"| {shape.name} {mix} | {total:.2f} GB | {' | '.join(cells)} | {most or '-'} |"
                )


def print_attention() -> None:
    """Print what 1,024 tokens of context add to a row."""
    print("\n| a row after 1,024 tokens | KV, f16 | Pi 4: read, compute | Pi 5: read, compute |")
    print("|---|---|---|---|")
    for shape in SHAPES:
        kv_bytes = 1024 * shape.n_layers * shape.n_kv_heads * shape.head_dim * 2 * 2
        macs = 1024 * shape.n_layers * shape.n_heads * shape.head_dim * 2
        cells = [
            f"{1e3 * kv_bytes / b.bytes_per_second:.1f}, "
            f"{1e3 * macs / (4 * FLOAT_MACS_PER_CYCLE * b.hertz):.1f} ms"
            for b in BOARDS
        ]
        print(f"| {shape.name} | {kv_bytes / 1e6:.0f} MB | {' | '.join(cells)} |")


if __name__ == "__main__":
    print_steps()
    print_attention()
