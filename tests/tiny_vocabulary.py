"""A SentencePiece vocabulary of control and byte tokens, letters and a few merges."""

LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
MERGES = ("he", "in", "th", "er", "an", "re", "on", "▁t", "▁a", "▁s", "▁w", "the", "▁th", "▁the")
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # token types of the GGUF specification


def vocabulary(size: int) -> tuple[list[str], list[float], list[int]]:
    """Return pieces, scores and types of a SentencePiece vocabulary of ``size`` >= 300 tokens."""
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256
    words = [*MERGES, "▁", *LETTERS]
    if size < len(pieces) + len(words):
        raise ValueError(f"a vocabulary needs at least {len(pieces) + len(words)} tokens")
    pairs = [pair for a in LETTERS for b in LETTERS if (pair := f"▁{a}{b}") not in words]
    words += pairs[: size - len(pieces) - len(words)]
    words += [f"▁filler{i}" for i in range(size - len(pieces) - len(words))]
    scores = [0.0] * len(pieces) + [-float(rank) for rank in range(len(words))]
    return pieces + words, scores, types + [NORMAL] * len(words)
