"""What the service says, as values of this package: protobuf ends here.

A value has the fields of its message in protos/llamad_api/v1, where their units stand, under
the same names. An enum is its name in lower case without prefix (``ready``, ``stop_string``); what
is optional and absent is None. ``tests/clients/test_values.py`` compares the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from google.protobuf.message import Message

from llamad_api.v1 import admin_pb2
from llamad_api.v1 import llamad_pb2 as pb
from llamad_client.loaded_model import LoadedModel, MemoryPlan
from llamad_client.vectors import Embedding, RankedDocument, Ranking


@dataclass(frozen=True, slots=True)
class Queued:
    """The first event of a completion: its job is in the queue. Again when its place changes."""

    job_id: str
    queue_position: int
    prompt_tokens: int
    dropped_messages: int
    substitute_template: str
    wait_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class PrefillProgress:
    """An event while a long prompt is read."""

    processed_tokens: int
    prompt_tokens: int
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token was, and which were likeliest: `TokenLogprob` in generation.proto."""

    token: int
    piece: bytes  # of its text; of a token that ends an answer none
    logprob: float  # natural logarithm
    likeliest: Sequence["TokenLogprob"] = ()  # likeliest first


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the completion. tokens: of the completion so far; logprob: of the newest."""

    text: str
    tokens: int
    logprob: TokenLogprob | None = None


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """A piece of what the model thinks before it answers a chat. tokens: of the completion so far.

    It is no part of the answer: iterating over a completion leaves it out.
    """

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a call of a tool; the first of an ``index`` has id and name.

    arguments: the next piece of a JSON object. tokens: of the completion so far. It is no part of
    the answer's text.
    """

    index: int
    id: str
    name: str
    arguments: str
    tokens: int


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """What a chat gives the model to read: `RenderChatResponse` in llamad.proto."""

    text: str
    tokens: list[int]
    dropped_messages: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Durations in seconds."""

    queue_seconds: float
    prefill_seconds: float
    decode_seconds: float
    time_to_first_token_seconds: float
    time_per_output_token_seconds: float
    load_seconds: float


@dataclass(frozen=True, slots=True)
class Result:
    """The last event: how a completion ended, `Finished` and its `Usage` in generation.proto.

    ``finish_reason``: stop, stop_string, length, loop, tool_calls or cancelled.
    """

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cached_prompt_tokens: int
    reasoning_tokens: int
    timings: Timings
    seed: int
    job_id: str
    model: str
    stop_string: str
    dropped_messages: int
    context_full: bool
    format_incomplete: bool  # it ended before the response_format that was asked for did


Event = Queued | PrefillProgress | TextDelta | ThinkingDelta | ToolCallDelta | Result


@dataclass(frozen=True, slots=True)
class Job:
    """A request on its way through the service."""

    id: str
    state: str
    priority: str
    model: str
    prompt_tokens: int
    processed_prompt_tokens: int
    completion_tokens: int
    max_tokens: int | None
    age_seconds: float
    running_seconds: float
    finish_reason: str
    error: str
    owner_uid: int | None
    error_reason: str
    on_behalf_of: str
    durable: bool
    idempotency_key: str
    queue_position: int | None
    wait_seconds: float | None
    submitted_at: float | None


@dataclass(frozen=True, slots=True)
class PrefixCache:
    """What prompts did not have to be read for: `PrefixCache` in status.proto."""

    hits: int
    misses: int
    tokens_reused: int
    bytes_on_disk: int
    bytes_written: int
    bytes_read: int


@dataclass(frozen=True, slots=True)
class Board:
    """The board under the service: `Board` in status.proto."""

    temperature_celsius: float | None
    throttled: bool | None
    under_voltage: bool | None
    throttled_before: bool | None
    under_voltage_before: bool | None


@dataclass(frozen=True, slots=True)
class DraftModel:
    """The small model that guesses for the loaded one: `DraftModel` in status.proto."""

    name: str
    guessed_tokens: int
    accepted_tokens: int
    paused: bool
    fault: str


@dataclass(frozen=True, slots=True)
class AdapterStatus:
    """An adapter beside the loaded model. fault: why requests may not name it, or empty."""

    name: str
    fault: str


@dataclass(frozen=True, slots=True)
class Status:
    """What the service is doing: `GetStatusResponse` in status.proto.

    ``state``: loading, ready, no_model, failed or stopping.
    """

    state: str
    detail: str
    uptime_seconds: float
    model: LoadedModel | None
    jobs_queued: int
    jobs_running: int
    queue_capacity: int
    sequence_slots: int
    kv_bytes: int
    kv_blocks_total: int
    kv_blocks_free: int
    requests_finished: int
    generated_tokens: int
    prompt_tokens: int
    threads: int
    kernel_set: str
    memory: MemoryPlan | None
    kv_blocks_cached: int
    prefix: PrefixCache | None
    board: Board | None
    jobs_stored: int
    durability: str
    draft: DraftModel | None
    adapters: Sequence[AdapterStatus] = ()


@dataclass(frozen=True, slots=True)
class Version:
    """The versions of the service, its engine and its interface: `GetVersionResponse`."""

    version: str
    engine_version: str
    api_version: str


@dataclass(frozen=True, slots=True)
class Model:
    """A model in the service's model directory."""

    name: str
    path: str
    file_bytes: int
    loaded: bool
    selected: bool
    is_adapter: bool = False  # loaded beside a model, which ``base`` names as its file does
    base: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a request of a model gets where it does not say. value: JSON.

    ``source``: model_section, model_file, recommended, configuration or built_in.
    """

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class MetadataEntry:
    """An entry of a model's file; see status.proto for what of it is there."""

    key: str
    value: str
    length: int


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """One model: what its file says, and the settings that its requests get."""

    name: str
    path: str
    file_bytes: int
    loaded: bool
    title: str
    architecture: str
    licence: str
    parameters: int
    quantization: str
    n_ctx_train: int
    n_ctx: int | None
    has_chat_template: bool
    chat_template: str
    settings: list[Setting]
    metadata: list[MetadataEntry]
    digest: str
    modified_at: float
    capabilities: list[str]


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """A job that was submitted: `SubmitJobResponse` in llamad.proto."""

    job: Job
    existing: bool


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of prompts that the service keeps: `Prefix` in llamad.proto."""

    name: str
    model: str
    tokens: int
    bytes_on_disk: int
    uses: int
    for_everybody: bool
    in_memory: bool
    age_seconds: float


@dataclass(frozen=True, slots=True)
class AddedPrefix:
    """A prefix that was read and is kept now. ``bytes_on_disk`` 0: it could not be saved."""

    tokens: int
    bytes_on_disk: int


@dataclass(frozen=True, slots=True)
class UsedModel:
    """The model that was loaded on request: `UseModelResponse` in admin.proto."""

    model: Model
    load_seconds: float


@dataclass(frozen=True, slots=True)
class AddedModel:
    """A model that the service has now. ``unchanged``: it had it already, nothing was sent."""

    name: str
    path: str
    file_bytes: int
    sha256: str
    unchanged: bool


VALUES: dict[type[Message], type[Any]] = {
    pb.Queued: Queued,
    pb.PrefillProgress: PrefillProgress,
    pb.TextDelta: TextDelta,
    pb.TokenLogprob: TokenLogprob,
    pb.ThinkingDelta: ThinkingDelta,
    pb.ToolCallDelta: ToolCallDelta,
    pb.RenderChatResponse: RenderedChat,
    pb.Timings: Timings,
    pb.Job: Job,
    pb.LoadedModel: LoadedModel,
    pb.MemoryPlan: MemoryPlan,
    pb.PrefixCache: PrefixCache,
    pb.Board: Board,
    pb.DraftModel: DraftModel,
    pb.AdapterStatus: AdapterStatus,
    pb.Setting: Setting,
    pb.MetadataEntry: MetadataEntry,
    pb.ModelDetails: ModelDetails,
    pb.GetStatusResponse: Status,
    pb.SubmitJobResponse: SubmittedJob,
    pb.GetVersionResponse: Version,
    pb.EmbedResponse: Embedding,
    pb.RankedDocument: RankedDocument,
    pb.RerankResponse: Ranking,
    admin_pb2.Model: Model,
    admin_pb2.UseModelResponse: UsedModel,
    admin_pb2.AddPrefixResponse.Done: AddedPrefix,
    pb.Prefix: Prefix,
}
"""The messages that have the very fields of a value."""

Value = TypeVar("Value")


def value_of(kind: type[Value], message: Message) -> Value:
    """Return a message of ``VALUES`` as its value."""
    return kind(**{entry.name: _field(message, entry.name) for entry in fields(kind)})  # type: ignore[arg-type]


def _field(message: Message, name: str) -> Any:
    field = message.DESCRIPTOR.fields_by_name[name]
    value = getattr(message, name)
    if field.enum_type is not None:
        return _enum_name(field.enum_type, value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):  # repeated
        return [
            value_of(VALUES[type(entry)], entry) if isinstance(entry, Message) else entry
            for entry in value
        ]
    # an optional field is the one member of a oneof that nobody names
    has_presence = field.message_type is not None or field.containing_oneof is not None
    if has_presence and not message.HasField(name):
        return None
    return value_of(VALUES[type(value)], value) if isinstance(value, Message) else value


def _enum_name(enum: Any, number: int) -> str:
    names = {value.number: value.name for value in enum.values}
    prefix = names[0].removesuffix("UNSPECIFIED")
    return str(names.get(number, number)).removeprefix(prefix).lower()


Response = pb.GenerateResponse | pb.ChatResponse | pb.ResumeJobResponse


def event_of(response: Response) -> Event | None:
    """Return the event of a response; None for one that this version does not know."""
    match response.WhichOneof("event"):
        case "delta":
            return value_of(TextDelta, response.delta)
        case "thinking":
            return value_of(ThinkingDelta, response.thinking)  # type: ignore[union-attr]
        case "tool_call":
            return value_of(ToolCallDelta, response.tool_call)  # type: ignore[union-attr]
        case "queued":
            return value_of(Queued, response.queued)
        case "prefill":
            return value_of(PrefillProgress, response.prefill)
        case "finished":
            return _result(response.finished)
        case _:
            return None


def _result(finished: pb.Finished) -> Result:
    return Result(
        finish_reason=_enum_name(pb.FinishReason.DESCRIPTOR, finished.reason),
        prompt_tokens=finished.usage.prompt_tokens,
        completion_tokens=finished.usage.completion_tokens,
        cached_prompt_tokens=finished.usage.cached_prompt_tokens,
        reasoning_tokens=finished.usage.reasoning_tokens,
        timings=value_of(Timings, finished.timings),
        seed=finished.seed,
        job_id=finished.job_id,
        model=finished.model,
        stop_string=finished.stop_string,
        dropped_messages=finished.dropped_messages,
        context_full=finished.context_full,
        format_incomplete=finished.format_incomplete,
    )


def added_model(done: admin_pb2.AddModelResponse.Done) -> AddedModel:
    """Return the last message of an AddModel call."""
    model = done.model
    return AddedModel(model.name, model.path, model.file_bytes, done.sha256, done.unchanged)
