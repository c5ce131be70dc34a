"""No bit of the logits depends on the batch, the company, the threads, the cache or the kernel set.

Equality of bits, not a tolerance: so a seeded answer is the same alone and in company, a cached
prefix equals a recomputed one, and a resumed job continues as if it had never stopped.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

from engine.feeding import Logits, Part, bits, feed, feed_together, random_tokens
from family_models import FAMILY_MODELS
from llamad.engine.bindings import Engine, EngineError, EngineModel, Run, kernel_set
from llamad.engine.single_sequence import BLOCK_TOKENS, SingleSequence, blocks_for
from llamad.errors import ErrorKind
from tiny_gguf import FORMATS, TinyModelPath, TinySpec

N_TOKENS = 70  # two whole KV blocks and a part
MOST_CHUNK_ROWS = 256  # of a matrix: LLD_CHUNK_ROWS_MAX


def spec_of(weight_type: str) -> TinySpec:
    """Return a model with rows of 96 and 160 elements, or 256 and 512 where the format needs it."""
    wide = FORMATS[weight_type].block > 32
    return TinySpec(
        weight_type=weight_type,
        dim=256 if wide else 96,
        hidden_dim=512 if wide else 160,
        vocab_size=310,
    )


# Layers that see 9 tokens and layers that see all, two RoPE tables, four norms, softcaps.
WINDOWED = [
    TinySpec(architecture="gemma2", window=9, weight_type="Q4_0", dim=96, hidden_dim=160),
    TinySpec(architecture="gemma3", window=9, n_layers=6, dim=96, hidden_dim=160, n_ctx_train=2048),
]


@contextmanager
def open_engine(
    tiny_model_path: TinyModelPath,
    spec: TinySpec,
    *,
    n_threads: int = 2,
    n_ctx: int = 96,
    n_sequences: int = 1,
    kv_type: str = "f16",
    cpu: str | None = None,
) -> Iterator[Engine]:
    with (
        EngineModel(tiny_model_path(spec)) as model,
        Engine(
            model,
            n_threads=n_threads,
            n_ctx=n_ctx,
            n_blocks=n_sequences * blocks_for(n_ctx),
            n_states=2 * n_sequences,
            n_batch=n_ctx,
            n_logits=n_ctx,
            kv_type=kv_type,
            cpu=cpu,
        ) as engine,
    ):
        yield engine


def fed_whole(engine: Engine, tokens: list[int]) -> Logits:
    """Return the logits of tokens fed in one step to a new sequence."""
    return feed(engine, tokens, chunk=len(tokens))


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("weight_type", FORMATS)
def test_chunking_changes_no_bit(
    tiny_model_path: TinyModelPath, weight_type: str, kv_type: str
) -> None:
    tokens = random_tokens(1, N_TOKENS)
    with open_engine(tiny_model_path, spec_of(weight_type), kv_type=kv_type) as engine:
        whole = fed_whole(engine, tokens)
        for chunk in (33, 32, 7, 4, 3, 2, 1):
            assert bits(feed(engine, tokens, chunk=chunk)) == bits(whole), f"chunks of {chunk}"


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("spec", WINDOWED, ids=lambda spec: spec.architecture)
def test_windows_change_no_bit(
    tiny_model_path: TinyModelPath, spec: TinySpec, kv_type: str
) -> None:
    """Over three chunks of attention: chunks, company, threads and kernel sets."""
    tokens, other = random_tokens(1, 530), random_tokens(2, 40)
    open_it = partial(open_engine, tiny_model_path, spec, n_ctx=544, kv_type=kv_type)
    with open_it(n_sequences=2) as engine:
        whole = fed_whole(engine, tokens)
        for chunk in (256, 33, 7, 1):
            assert bits(feed(engine, tokens, chunk=chunk)) == bits(whole), f"chunks of {chunk}"
        together = feed_together(engine, [tokens, other], random_steps(4, [530, 40]))
        assert bits(together[0]) == bits(whole)
        assert bits(together[1]) == bits(fed_whole(engine, other))
    for n_threads, cpu in ((1, None), (3, None), (2, "generic")):
        with open_it(n_threads=n_threads, cpu=cpu) as engine:
            assert bits(fed_whole(engine, tokens)) == bits(whole), (n_threads, cpu)


@pytest.mark.parametrize("family", FAMILY_MODELS)
def test_a_family_changes_no_bit(tiny_model_path: TinyModelPath, family: str) -> None:
    """Chunks, company, a shared prefix, a sequence computed again, threads and kernel sets."""
    spec = dataclasses.replace(FAMILY_MODELS[family], weight_type="Q8_0", n_ctx_train=512)
    tokens, other = random_tokens(1, N_TOKENS), random_tokens(2, 40)
    with open_engine(tiny_model_path, spec, n_sequences=2) as engine:
        whole = fed_whole(engine, tokens)
        for chunk in (33, 7, 1):
            assert bits(feed(engine, tokens, chunk=chunk)) == bits(whole), f"chunks of {chunk}"
        together = feed_together(engine, [tokens, other], random_steps(4, [N_TOKENS, 40]))
        assert bits(together[0]) == bits(whole)
        assert bits(together[1]) == bits(fed_whole(engine, other))
        owner = SingleSequence(engine)
        feed(engine, tokens[:64], chunk=32, sequence=owner)
        tail = feed(engine, tokens[64:], chunk=6, sequence=sharing(engine, owner, 64))
        assert bits(tail) == bits(whole[64:])
        if not spec.has_states:  # test_states.py has what those do in place of being cut
            owner.truncate(20)
            assert bits(feed(engine, tokens[20:], chunk=50, sequence=owner)) == bits(whole[20:])
    for n_threads, cpu in ((1, None), (3, None), (2, "generic")):
        with open_engine(tiny_model_path, spec, n_threads=n_threads, cpu=cpu) as engine:
            assert bits(fed_whole(engine, tokens)) == bits(whole), (n_threads, cpu)


def random_steps(seed: int, lengths: list[int]) -> list[list[Part]]:
    """Return steps that feed sequences of these lengths: 0-9 tokens of each a step, any order."""
    rng = np.random.default_rng(seed)
    left = dict(enumerate(lengths))
    steps: list[list[Part]] = []
    while any(left.values()):
        step = []
        for sequence in rng.permutation(len(lengths)).tolist():
            n = min(int(rng.integers(0, 10)), left[sequence])
            left[sequence] -= n
            step += [Part(sequence, n)] if n else []
        steps += [step] if step else []
    return steps


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("weight_type", FORMATS)
def test_company_changes_no_bit(
    tiny_model_path: TinyModelPath, weight_type: str, kv_type: str
) -> None:
    lengths = [70, 33, 32, 5, 1]
    prompts = [random_tokens(10 + i, n) for i, n in enumerate(lengths)]
    with open_engine(
        tiny_model_path, spec_of(weight_type), n_sequences=5, kv_type=kv_type
    ) as engine:
        together = feed_together(engine, prompts, random_steps(3, lengths))
        for prompt, logits in zip(prompts, together, strict=True):
            assert bits(logits) == bits(fed_whole(engine, prompt))


@pytest.mark.parametrize("weight_type", ["F32", "F16", "Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K"])
def test_the_number_of_threads_changes_no_bit(
    tiny_model_path: TinyModelPath, weight_type: str
) -> None:
    tokens = random_tokens(2, N_TOKENS)
    results = []
    for n_threads in (1, 2, 3, 4):
        with open_engine(tiny_model_path, spec_of(weight_type), n_threads=n_threads) as engine:
            results.append((bits(fed_whole(engine, tokens)), bits(feed(engine, tokens, chunk=1))))
    assert len({result for pair in results for result in pair}) == 1


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
def test_a_long_context_changes_no_bit(tiny_model_path: TinyModelPath, kv_type: str) -> None:
    """Attention splits a long context into parts, which small batches hand to several threads."""
    spec = TinySpec(n_layers=1, weight_type="Q8_0", n_ctx_train=1024)
    tokens, other = random_tokens(1, 530), random_tokens(2, 530)
    results = []
    for n_threads in (1, 2, 3):
        with open_engine(
            tiny_model_path, spec, n_threads=n_threads, n_ctx=544, n_sequences=2, kv_type=kv_type
        ) as engine:
            results.append(bits(fed_whole(engine, tokens)))
            for chunk in (100, 5, 4, 1):
                results.append(bits(feed(engine, tokens, chunk=chunk)))
            pairs = [[Part(0, n), Part(1, n)] for n in [250, 1, 2, 3] + [1] * 274]
            results.append(bits(feed_together(engine, [tokens, other], pairs)[0]))
    assert len(set(results)) == 1


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("weight_type", FORMATS)
def test_this_machines_kernels_and_the_generic_ones_give_the_same_bits(
    tiny_model_path: TinyModelPath, weight_type: str, kv_type: str
) -> None:
    tokens = random_tokens(4, N_TOKENS)
    results = []
    for cpu in ("generic", kernel_set()):
        with open_engine(tiny_model_path, spec_of(weight_type), kv_type=kv_type, cpu=cpu) as engine:
            assert engine.info.kernel_set == cpu
            results.append((bits(fed_whole(engine, tokens)), bits(feed(engine, tokens, chunk=1))))
    assert results[0] == results[1]


def sharing(engine: Engine, owner: SingleSequence, n_shared: int) -> SingleSequence:
    """Return another sequence that begins with the owner's first n_shared tokens.

    It names the owner's whole blocks; a block that it will write to, it gets a copy of.
    """
    sharer = SingleSequence(engine, 1)
    n_whole = n_shared // BLOCK_TOKENS
    if n_shared % BLOCK_TOKENS:
        for local in (False, True) if engine.kv_window else (False,):
            block = engine.block_read(owner.blocks[n_whole], local=local)
            engine.block_write(sharer.blocks[n_whole], block, local=local)
    sharer.blocks = [*owner.blocks[:n_whole], *sharer.blocks[n_whole:]]
    sharer.length = n_shared
    sharer.begin_with(owner.state)
    return sharer


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("n_shared", [1, 31, 32, 33, 64, 70])
def test_a_shared_prefix_equals_a_recomputed_one(
    tiny_model_path: TinyModelPath, n_shared: int, kv_type: str
) -> None:
    first = random_tokens(5, N_TOKENS)
    second = first[:n_shared] + random_tokens(6, N_TOKENS + 10 - n_shared)
    with open_engine(tiny_model_path, spec_of("Q4_0"), n_sequences=2, kv_type=kv_type) as engine:
        alone = fed_whole(engine, second)
        owner = SingleSequence(engine)
        feed(engine, first, chunk=32, sequence=owner)
        sharer = sharing(engine, owner, n_shared)
        branched = feed(engine, second[n_shared:], chunk=7, sequence=sharer)
        assert bits(branched) == bits(alone[n_shared:])
        # and the branch wrote nothing into the sequence it came from
        more = random_tokens(8, 9)
        continued = feed(engine, more, chunk=9, sequence=owner)
        assert bits(continued) == bits(fed_whole(engine, first + more)[N_TOKENS:])


def test_sequences_that_share_blocks_may_be_in_one_step(tiny_model_path: TinyModelPath) -> None:
    first, more, other = random_tokens(5, 64), random_tokens(6, 9), random_tokens(7, 9)
    with open_engine(tiny_model_path, spec_of("Q4_0"), n_sequences=2) as engine:
        expected = [fed_whole(engine, first + tail)[64:] for tail in (more, other)]
        owner = SingleSequence(engine)
        feed(engine, first, chunk=64, sequence=owner)
        sharer = sharing(engine, owner, 64)
        engine.forward([owner.run(more, n_out=9), sharer.run(other, n_out=9)])
        rows = np.stack([np.array(engine.logits(k)) for k in range(18)])
        assert [bits(rows[:9]), bits(rows[9:])] == [bits(logits) for logits in expected]


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
def test_blocks_kept_as_bytes_continue_in_another_engine(
    tiny_model_path: TinyModelPath, kv_type: str
) -> None:
    first, more = random_tokens(1, N_TOKENS), random_tokens(2, 20)
    with open_engine(tiny_model_path, spec_of("Q8_0"), kv_type=kv_type) as engine:
        expected = fed_whole(engine, first + more)[N_TOKENS:]
        blocks = [engine.block_read(i) for i in range(blocks_for(N_TOKENS))]
    with open_engine(tiny_model_path, spec_of("Q8_0"), kv_type=kv_type, n_threads=1) as engine:
        for i, data in enumerate(blocks):
            engine.block_write(i, data)
        sequence = SingleSequence(engine)
        sequence.length = N_TOKENS
        assert bits(feed(engine, more, chunk=20, sequence=sequence)) == bits(expected)


@pytest.mark.parametrize("kept", [0, 1, 31, 32, 50])
def test_a_truncated_sequence_continues_as_if_never_longer(
    tiny_model_path: TinyModelPath, kept: int
) -> None:
    first, second = random_tokens(1, N_TOKENS), random_tokens(2, 20)
    with open_engine(tiny_model_path, spec_of("Q8_0"), kv_type="q8_0") as engine:
        expected = fed_whole(engine, first[:kept] + second)[kept:]
        sequence = SingleSequence(engine)
        feed(engine, first, chunk=32, sequence=sequence)
        sequence.truncate(kept)
        assert bits(feed(engine, second, chunk=20, sequence=sequence)) == bits(expected)


def test_a_cancelled_step_can_be_run_again(tiny_model_path: TinyModelPath) -> None:
    tokens = random_tokens(1, N_TOKENS)
    with open_engine(tiny_model_path, spec_of("Q4_0")) as engine:
        whole = fed_whole(engine, tokens)
        sequence = SingleSequence(engine)
        feed(engine, tokens[:40], chunk=40, sequence=sequence)
        engine.cancel()
        with pytest.raises(EngineError) as caught:
            feed(engine, tokens[40:], chunk=30, sequence=sequence)
        assert caught.value.kind is ErrorKind.CANCELLED
        assert sequence.length == 40
        engine.cancel_clear()
        again = feed(engine, tokens[40:], chunk=30, sequence=sequence)
        assert bits(again) == bits(whole[40:])


def test_a_step_that_is_refused_changes_no_block(tiny_model_path: TinyModelPath) -> None:
    tokens = random_tokens(1, 60)
    with open_engine(tiny_model_path, spec_of("Q4_0"), n_sequences=2) as engine:
        feed(engine, tokens, chunk=60)
        blocks = [engine.block_read(i) for i in range(engine.n_blocks)]
        good, bad = SingleSequence(engine, 1).run(tokens[:20]), Run(tokens[:9], 0, [0], n_out=10)
        with pytest.raises(EngineError, match="run 1: logits of 10 tokens are wanted, it has 9"):
            engine.forward([good, bad])
        assert [engine.block_read(i) for i in range(engine.n_blocks)] == blocks


def test_progress_counts_the_layers_of_every_step_and_the_chunks_of_the_output(
    tiny_model_path: TinyModelPath,
) -> None:
    spec = dataclasses.replace(spec_of("Q4_0"), vocab_size=310 + 10 * MOST_CHUNK_ROWS)
    with open_engine(tiny_model_path, spec, n_threads=1) as engine:
        sequence = SingleSequence(engine)
        assert engine.progress == 0
        for _ in range(3):
            sequence.feed([1])
        assert engine.progress == 3 * spec.n_layers
        sequence.feed([1], n_out=1)
        assert engine.progress >= 4 * spec.n_layers + 11
