"""A deterministic engine, model and clock for the scheduler's tests, and a bench that joins them.

The fake engine checks the contract of lld_engine_forward on every step, and its "logits" are the
sequence's whole history, so a wrong token, position or block changes what is generated. Tokens
are byte values; byte 0 ends a generation.
"""

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager, suppress
from typing import Any

from llamad.engine.run import AdapterUse
from llamad.engine.worker import EngineWorker, StepPlan, StepResult
from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.book import JobBook
from llamad.jobs.event import Delta, Event, Finished, Timings
from llamad.jobs.job import Job
from llamad.jobs.record import JobSnapshot
from llamad.jobs.request import AdapterChoice, GenerationRequest, Pooling
from llamad.sampling.parameters import Sampling
from llamad.schedule.encoder import Encoder
from llamad.schedule.limits import Limits
from llamad.schedule.loop import Scheduler
from llamad.schedule.prompt import template_tools
from llamad.service.measures import Measures
from llamad.text.detokenizer import Detokenizer
from llamad.text.rank_prompt import RankTokens
from llamad.text.thinking import TAIL_TOKENS, Splitter, ThinkingMarks, ThoughtMarks
from llamad.text.tools.call import Tools
from llamad.text.tools.formats import HERMES
from llamad.text.tools.splitter import CallSplitter
from unit.schedule.fake_clock import FakeClock as FakeClock
from unit.schedule.fake_engine import END as END
from unit.schedule.fake_engine import TIMEOUT_SECONDS as TIMEOUT_SECONDS
from unit.schedule.fake_engine import FakeEngine as FakeEngine
from unit.schedule.fake_engine import History as History
from unit.schedule.fake_engine import Rule as Rule
from unit.schedule.fake_engine import letters as letters
from unit.schedule.fake_engine import saying as saying
from unit.schedule.fake_formats import FakeConstraint, FakeFormats
from unit.schedule.fake_template import FakeChatTemplate

SIMULATED_TICK_SECONDS = 0.01
SETTLING_TURNS = 4  # of the event loop after each tick, for the tasks that it woke


class FakeSampler:
    """Draws by the engine's rule; counts its draws as a seeded sampler advances its state."""

    def __init__(self, seed: int, n_draws: int = 0, mu: float | None = None) -> None:
        self.seed = seed
        self.mu = 10.0 if mu is None else mu  # each draw adds to it
        self.accepted: list[int] = []
        self.prompt: History = ()  # what stood in front of its first draw
        self.n_draws = n_draws
        self.constraint: FakeConstraint | None = None

    @property
    def ended(self) -> bool:
        return self.constraint is not None and self.constraint.complete

    def accept(self, token: int, *, penalized: bool = True) -> None:
        self.accepted.append(token)

    def sample(self, engine: FakeEngine, k: int) -> int:
        history = engine.row(k)
        self.prompt = self.prompt or history
        if engine.refused(history):
            raise LlamadError(ErrorKind.CORRUPT, "MODEL_NOT_FINITE", "logits are not finite")
        token = engine.rule(history, self.seed, self.n_draws)
        self.n_draws += 1
        self.mu += 0.5
        if self.constraint is not None:
            allowed = self.constraint.allowed()
            assert allowed
            token = token if token in allowed else allowed[token % len(allowed)]
            self.constraint.accept(token)
        return token


class FakeTokenizer:
    """One token a byte."""

    adds_space_prefix = False

    def encode(
        self, text: str, add_bos: bool | None = None, parse_special: bool = False
    ) -> list[int]:
        return list(text.encode())

    def piece(self, token: int, special: bool = False) -> bytes:
        return bytes([token])

    def is_end_of_generation(self, token: int) -> bool:
        return token == END


class FakeRankPrompt:
    """The query, a bar, the document, whose last character decides."""

    def encode(self, query: str, document: str) -> RankTokens:
        tokens = f"{query}|{document}".encode()
        return RankTokens(tuple(tokens), len(query.encode()) + 1, 0)


class FakeModel:
    """The runtime of a fake engine."""

    def __init__(
        self,
        *,
        n_ctx: int = 512,
        n_batch: int = 64,
        n_sequences: int = 4,
        guess_rows: int = 8,
        kv_blocks_total: int = 64,
        kv_block_tokens: int = 32,
        n_states: int = 0,
        state_interval: int = 1,
        kv_local_blocks: int = 0,
        kv_window: int = 0,
        is_encoder: int = False,
        ranks: int = False,
    ) -> None:
        self.is_encoder = bool(is_encoder)
        self.embedding_dim = 2
        self.pooling: Pooling | None = Pooling.MEAN
        self.rank_prompt = FakeRankPrompt() if ranks else None
        self.n_rank_scores = 1
        self.name = "fake"
        self.vocab_size = 256
        self.n_ctx = n_ctx
        self.n_batch = n_batch
        self.n_sequences = n_sequences
        self.guess_rows = guess_rows
        self.kv_blocks_total = kv_blocks_total
        self.kv_block_tokens = kv_block_tokens
        self.n_states = n_states
        self.state_interval = state_interval
        self.kv_local_blocks = kv_local_blocks
        self.kv_window = kv_window
        self.load_seconds = 1.5
        self.step_read_seconds = 0.0
        self.tokenizer = FakeTokenizer()
        self.chat_template = FakeChatTemplate()
        self.ends_answers = True
        self.formats = FakeFormats()
        self.thinking: ThoughtMarks = ThinkingMarks()
        self.draft: Any = None
        self.guess_layer: Any = None
        self.adapters = FakeAdapters()
        self.samplers: list[FakeSampler] = []
        self.sampler_error: Exception | None = None

    def new_detokenizer(self) -> Any:
        return Detokenizer(self.tokenizer)  # type: ignore[arg-type]

    def new_thinking_splitter(self, prompt: Sequence[int]) -> Splitter | None:
        return self.thinking.splitter(bytes(prompt[-TAIL_TOKENS:]).decode(errors="replace"))

    def new_call_splitter(
        self, request: GenerationRequest, prompt: Sequence[int]
    ) -> CallSplitter | None:
        tools = template_tools(request.callable_tools)
        return CallSplitter(HERMES, Tools(tools)) if tools else None

    def begun_answer(self, prompt: Sequence[int], request: GenerationRequest) -> list[int]:
        return []

    def new_sampler(
        self,
        request: GenerationRequest,
        *,
        seed: int,
        n_draws: int = 0,
        mu: float | None = None,
        constraint: FakeConstraint | None = None,
    ) -> FakeSampler:
        if self.sampler_error is not None:
            raise self.sampler_error
        self.samplers.append(FakeSampler(seed, n_draws, mu))
        self.samplers[-1].constraint = constraint
        return self.samplers[-1]


class FakeAdapters:
    """Adapters by name, with the digests of their files."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}
        self.times: dict[str, int] = {}

    def digest(self, name: str) -> str:
        if name not in self.digests:
            raise LlamadError(ErrorKind.NOT_FOUND, "ADAPTER_NOT_FOUND", f"no adapter {name!r}")
        return self.digests[name]

    def told(self) -> dict[str, str]:
        return dict.fromkeys(self.digests, "")

    def use(self, choice: AdapterChoice) -> AdapterUse:
        if self.digest(choice.name) != choice.digest:
            raise LlamadError(ErrorKind.STATE, "ADAPTER_CHANGED", f"adapter {choice.name!r}")
        return AdapterUse(choice.name, choice.scale)


class FakeObserver:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.ended: list[tuple[JobSnapshot, Timings]] = []
        self.model_errors: list[LlamadError] = []

    def on_ended(self, snapshot: JobSnapshot, timings: Timings) -> None:
        self.ended.append((snapshot, timings))

    def on_model_failed(self, error: LlamadError) -> None:
        self.model_errors.append(error)


class InlineExecutor(Executor):
    """Runs what it is given at once, so that simulated time holds no thread up."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Bench:
    """A scheduler over a fake engine, with everything a test wants to look at."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        history: int = 100,
        encoder: Encoder | None = None,
        scheduler_class: type[Scheduler] = Scheduler,
        draft: Any = None,
        **sizes: int,
    ) -> None:
        self.model = FakeModel(**sizes)
        self.model.draft = draft
        self.engine = FakeEngine(
            n_batch=self.model.n_batch,
            n_blocks=self.model.kv_blocks_total,
            block_tokens=self.model.kv_block_tokens,
            n_states=self.model.n_states,
            n_local=self.model.kv_local_blocks,
            window=self.model.kv_window,
        )
        self.worker = EngineWorker(self.engine)
        self.clock = FakeClock()
        self.observer = FakeObserver()
        self.measures = Measures()
        self.book = JobBook(history, clock=self.clock, observers=[self.observer, self.measures])
        self.scheduler = scheduler_class(
            self.model,
            self.worker,
            self.book,
            limits or Limits(),
            clock=self.clock,
            encoder=encoder,
            observer=self.observer,
            on_step=self.measures.on_step,
        )
        self._loop = asyncio.get_running_loop()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the scheduling loop meanwhile."""
        task = asyncio.create_task(self.scheduler.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task  # a loop that failed is a failure of the test
            self.worker.close()

    def pause_step(self, number: int) -> asyncio.Event:
        """Let step ``number`` (from 0) wait for a cancel; set the event when it has begun."""
        entered = asyncio.Event()
        count = iter(range(1 << 30))

        def pause() -> None:
            if next(count) == number:
                self._loop.call_soon_threadsafe(entered.set)
                self.engine.wait_for_cancel()

        self.engine.before_step = pause
        return entered

    def at_step(self, number: int, action: Callable[[], object]) -> None:
        """Run ``action`` on the event loop while step ``number`` is held, then let it go on."""
        count = iter(range(1 << 30))

        def pause() -> None:
            if next(count) == number:
                self.on_loop(action)

        self.engine.before_step = pause

    def simulate(
        self,
        *,
        seconds_per_row: float = 0.0,
        seconds_per_step: float = 0.0,
        tick_seconds: float = SIMULATED_TICK_SECONDS,
        more_seconds: Callable[[int], float] = lambda n_rows: 0.0,
    ) -> None:
        """Let every step take simulated time, in which timers run and cancels are heard.

        Steps run on the event loop: with the engine's own thread their number would depend on how
        the machine shares its processors between the two, and so would the time of a test.
        """

        async def step(plan: StepPlan) -> StepResult:
            n_rows = sum(len(chunk.tokens) for chunk in plan.chunks)
            left = seconds_per_step + n_rows * seconds_per_row + more_seconds(n_rows)
            while left > 1e-9 and not self.engine.cancelled:
                tick = min(tick_seconds, left)
                self.clock.advance(tick)
                for _ in range(SETTLING_TURNS):
                    await asyncio.sleep(0)
                left -= tick
            return self.worker._run(plan)

        self.worker.step = step  # type: ignore[method-assign]

    async def sleep(self, seconds: float) -> None:
        """Wait for simulated time to pass."""
        over = asyncio.Event()
        self.clock.call_at(self.clock.now() + seconds, over.set)
        await over.wait()

    def on_loop(self, action: Callable[[], object]) -> None:
        """Run ``action`` on the event loop and wait for it; called on the engine thread."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(action)
        self._loop.call_soon_threadsafe(done.set)
        assert done.wait(TIMEOUT_SECONDS)


def request(prompt: str = "prompt", *, seed: int = 7, **fields: Any) -> GenerationRequest:
    return GenerationRequest(prompt=prompt, sampling=Sampling(seed=seed), **fields)


async def events_of(job: Job) -> list[Event]:
    return [event async for event in job.stream]


async def text_of(job: Job) -> str:
    return text_in(await events_of(job))


def text_in(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


async def finish_of(job: Job) -> Finished:
    last = (await events_of(job))[-1]
    assert isinstance(last, Finished)
    return last


async def error_of(job: Job) -> LlamadError:
    try:
        await events_of(job)
    except LlamadError as error:
        return error
    raise AssertionError("the stream ended without an error")


def asynchronous(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), TIMEOUT_SECONDS))

    return run
