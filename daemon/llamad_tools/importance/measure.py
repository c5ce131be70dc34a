"""Measuring an importance matrix: the sums of the squares of each matrix's inputs over a text."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from llamad.engine.bindings import (
    INPUT_MATRICES,
    OUTPUT_INPUT,
    Engine,
    EngineModel,
    Importance,
    Run,
)
from llamad.engine.single_sequence import SingleSequence
from llamad.errors import ErrorKind, LlamadError
from llamad.text.tokenizer import Tokenizer
from llamad_tools.importance.file import InputSums
from llamad_tools.progress_line import TOKENS, Progress

ROWS_A_STEP = 512
OUTPUT_SAMPLE = 16  # one row in so many is multiplied with the output matrix, the largest of all


@dataclass(frozen=True, slots=True)
class Measurement:
    """The sums of each matrix, and the windows of the text that they are of."""

    matrices: tuple[InputSums, ...]
    n_windows: int
    n_tokens: int


def split(tokenizer: Tokenizer, text: str, n_ctx: int) -> list[list[int]]:
    """Return the text in windows of at most n_ctx tokens, each begun as the model wants it.

    Raises LlamadError for a context that has room for the beginning only.
    """
    begin = []
    if tokenizer.vocabulary.add_bos and tokenizer.bos_id is not None:
        begin = [tokenizer.bos_id]
    tokens = tokenizer.encode(text, add_bos=False)
    step = n_ctx - len(begin)
    if step < 1:
        raise LlamadError(
            ErrorKind.STATE,
            "CONTEXT_TOO_SHORT",
            f"the model's context of {n_ctx} tokens holds no text after its beginning",
        )
    return [begin + tokens[i : i + step] for i in range(0, len(tokens), step)]


def measure(
    model: EngineModel, windows: Sequence[Sequence[int]], *, names: Container[str], n_threads: int
) -> Measurement:
    """Run every window through the model.

    names: of the file's tensors. Of the inputs of the output matrix only a sample is made. Raises
    LlamadError when there is no window.
    """
    if not windows:
        raise LlamadError(ErrorKind.INVALID, "TEXT_TOO_SHORT", "the text has no tokens")
    n_ctx, n_tokens = max(map(len, windows)), sum(map(len, windows))
    n_batch = min(ROWS_A_STEP, n_ctx)
    with (
        Importance(model, n_threads) as importance,
        Engine(
            model,
            n_threads=n_threads,
            n_ctx=n_ctx,
            n_batch=n_batch,
            n_logits=max(1, n_batch // OUTPUT_SAMPLE),
        ) as engine,
        Progress(n_tokens, unit=TOKENS) as progress,
    ):
        engine.collect(importance)
        for number, window in enumerate(windows, 1):
            sequence = SingleSequence(engine)
            for start in range(0, len(window), n_batch):
                tokens = window[start : start + n_batch]
                engine.forward(_sampled(sequence, tokens))
                progress.advance(len(tokens), f"window {number} of {len(windows)}")
        matrices = tuple(_read(importance, model.info.n_layers, names))
    return Measurement(matrices, len(windows), n_tokens)


def _sampled(sequence: SingleSequence, tokens: Sequence[int]) -> list[Run]:
    """Append tokens, as runs that each keep their last row; what is left over keeps none."""
    runs = []
    for start in range(0, len(tokens), OUTPUT_SAMPLE):
        part = tokens[start : start + OUTPUT_SAMPLE]
        runs.append(sequence.run(part, n_out=len(part) // OUTPUT_SAMPLE))
        sequence.length += len(part)
    return runs


def _read(importance: Importance, n_layers: int, names: Container[str]) -> Iterator[InputSums]:
    for layer in range(n_layers):
        for input_id, matrices in INPUT_MATRICES.items():
            sums, n_rows = importance.read(layer, input_id)
            if not n_rows:
                continue
            for matrix in (f"blk.{layer}.{name}.weight" for name in matrices):
                if matrix in names:
                    yield InputSums(matrix, sums, n_rows)
    sums, n_rows = importance.read(0, OUTPUT_INPUT)
    if n_rows[0]:  # a short text may have none in its sample
        output = "output.weight" if "output.weight" in names else "token_embd.weight"
        yield InputSums(output, sums, n_rows)
