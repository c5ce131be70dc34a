from llamad_api.v1 import generation_pb2 as _generation_pb2
from llamad_api.v1 import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union
from llamad_api.v1.generation_pb2 import Sampling as Sampling
from llamad_api.v1.generation_pb2 import Thinking as Thinking
from llamad_api.v1.generation_pb2 import Options as Options
from llamad_api.v1.generation_pb2 import Adapter as Adapter
from llamad_api.v1.generation_pb2 import ResponseFormat as ResponseFormat
from llamad_api.v1.generation_pb2 import Choices as Choices
from llamad_api.v1.generation_pb2 import GenerateRequest as GenerateRequest
from llamad_api.v1.generation_pb2 import ToolCall as ToolCall
from llamad_api.v1.generation_pb2 import Message as Message
from llamad_api.v1.generation_pb2 import Tool as Tool
from llamad_api.v1.generation_pb2 import ToolChoice as ToolChoice
from llamad_api.v1.generation_pb2 import ChatRequest as ChatRequest
from llamad_api.v1.generation_pb2 import Queued as Queued
from llamad_api.v1.generation_pb2 import PrefillProgress as PrefillProgress
from llamad_api.v1.generation_pb2 import TextDelta as TextDelta
from llamad_api.v1.generation_pb2 import TokenLogprob as TokenLogprob
from llamad_api.v1.generation_pb2 import ThinkingDelta as ThinkingDelta
from llamad_api.v1.generation_pb2 import ToolCallDelta as ToolCallDelta
from llamad_api.v1.generation_pb2 import Usage as Usage
from llamad_api.v1.generation_pb2 import Timings as Timings
from llamad_api.v1.generation_pb2 import Finished as Finished
from llamad_api.v1.generation_pb2 import GenerateResponse as GenerateResponse
from llamad_api.v1.generation_pb2 import ChatResponse as ChatResponse
from llamad_api.v1.generation_pb2 import Priority as Priority
from llamad_api.v1.generation_pb2 import FinishReason as FinishReason
from llamad_api.v1.generation_pb2 import ContextFull as ContextFull
from llamad_api.v1.generation_pb2 import Effort as Effort
from llamad_api.v1.status_pb2 import GetModelRequest as GetModelRequest
from llamad_api.v1.status_pb2 import GetModelResponse as GetModelResponse
from llamad_api.v1.status_pb2 import ModelDetails as ModelDetails
from llamad_api.v1.status_pb2 import Setting as Setting
from llamad_api.v1.status_pb2 import MetadataEntry as MetadataEntry
from llamad_api.v1.status_pb2 import GetStatusRequest as GetStatusRequest
from llamad_api.v1.status_pb2 import GetStatusResponse as GetStatusResponse
from llamad_api.v1.status_pb2 import AdapterStatus as AdapterStatus
from llamad_api.v1.status_pb2 import PrefixCache as PrefixCache
from llamad_api.v1.status_pb2 import Board as Board
from llamad_api.v1.status_pb2 import DraftModel as DraftModel
from llamad_api.v1.status_pb2 import MemoryPlan as MemoryPlan
from llamad_api.v1.status_pb2 import LoadedModel as LoadedModel
from llamad_api.v1.status_pb2 import GetMetricsRequest as GetMetricsRequest
from llamad_api.v1.status_pb2 import GetMetricsResponse as GetMetricsResponse
from llamad_api.v1.status_pb2 import GetVersionRequest as GetVersionRequest
from llamad_api.v1.status_pb2 import GetVersionResponse as GetVersionResponse

DESCRIPTOR: _descriptor.FileDescriptor
PRIORITY_UNSPECIFIED: _generation_pb2.Priority
PRIORITY_INTERACTIVE: _generation_pb2.Priority
PRIORITY_NORMAL: _generation_pb2.Priority
PRIORITY_BATCH: _generation_pb2.Priority
FINISH_REASON_UNSPECIFIED: _generation_pb2.FinishReason
FINISH_REASON_STOP: _generation_pb2.FinishReason
FINISH_REASON_STOP_STRING: _generation_pb2.FinishReason
FINISH_REASON_LENGTH: _generation_pb2.FinishReason
FINISH_REASON_CANCELLED: _generation_pb2.FinishReason
FINISH_REASON_LOOP: _generation_pb2.FinishReason
FINISH_REASON_TOOL_CALLS: _generation_pb2.FinishReason
CONTEXT_FULL_UNSPECIFIED: _generation_pb2.ContextFull
CONTEXT_FULL_REFUSE: _generation_pb2.ContextFull
CONTEXT_FULL_DROP_OLDEST: _generation_pb2.ContextFull
EFFORT_UNSPECIFIED: _generation_pb2.Effort
EFFORT_LOW: _generation_pb2.Effort
EFFORT_MEDIUM: _generation_pb2.Effort
EFFORT_HIGH: _generation_pb2.Effort

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_QUEUED: _ClassVar[JobState]
    JOB_STATE_PREFILL: _ClassVar[JobState]
    JOB_STATE_DECODE: _ClassVar[JobState]
    JOB_STATE_FINISHED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]

class Pooling(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POOLING_UNSPECIFIED: _ClassVar[Pooling]
    POOLING_MEAN: _ClassVar[Pooling]
    POOLING_FIRST: _ClassVar[Pooling]
    POOLING_LAST: _ClassVar[Pooling]
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_PREFILL: JobState
JOB_STATE_DECODE: JobState
JOB_STATE_FINISHED: JobState
JOB_STATE_CANCELLED: JobState
JOB_STATE_FAILED: JobState
POOLING_UNSPECIFIED: Pooling
POOLING_MEAN: Pooling
POOLING_FIRST: Pooling
POOLING_LAST: Pooling

class TokenizeRequest(_message.Message):
    __slots__ = ("text", "add_bos", "parse_special")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ADD_BOS_FIELD_NUMBER: _ClassVar[int]
    PARSE_SPECIAL_FIELD_NUMBER: _ClassVar[int]
    text: str
    add_bos: bool
    parse_special: bool
    def __init__(self, text: _Optional[str] = ..., add_bos: bool = ..., parse_special: bool = ...) -> None: ...

class TokenizeResponse(_message.Message):
    __slots__ = ("tokens", "pieces")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    pieces: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, tokens: _Optional[_Iterable[int]] = ..., pieces: _Optional[_Iterable[bytes]] = ...) -> None: ...

class DetokenizeRequest(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, tokens: _Optional[_Iterable[int]] = ...) -> None: ...

class DetokenizeResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("texts", "model", "truncate", "pooling", "priority", "deadline_seconds", "on_behalf_of", "dimensions", "adapter")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    POOLING_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ON_BEHALF_OF_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    model: str
    truncate: bool
    pooling: Pooling
    priority: _generation_pb2.Priority
    deadline_seconds: float
    on_behalf_of: str
    dimensions: int
    adapter: _generation_pb2.Adapter
    def __init__(self, texts: _Optional[_Iterable[str]] = ..., model: _Optional[str] = ..., truncate: bool = ..., pooling: _Optional[_Union[Pooling, str]] = ..., priority: _Optional[_Union[_generation_pb2.Priority, str]] = ..., deadline_seconds: _Optional[float] = ..., on_behalf_of: _Optional[str] = ..., dimensions: _Optional[int] = ..., adapter: _Optional[_Union[_generation_pb2.Adapter, _Mapping]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("index", "values", "tokens", "truncated_tokens", "model")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    index: int
    values: _containers.RepeatedScalarFieldContainer[float]
    tokens: int
    truncated_tokens: int
    model: str
    def __init__(self, index: _Optional[int] = ..., values: _Optional[_Iterable[float]] = ..., tokens: _Optional[int] = ..., truncated_tokens: _Optional[int] = ..., model: _Optional[str] = ...) -> None: ...

class RerankRequest(_message.Message):
    __slots__ = ("query", "documents", "top_n", "model", "truncate", "priority", "deadline_seconds", "on_behalf_of")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    TOP_N_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ON_BEHALF_OF_FIELD_NUMBER: _ClassVar[int]
    query: str
    documents: _containers.RepeatedScalarFieldContainer[str]
    top_n: int
    model: str
    truncate: bool
    priority: _generation_pb2.Priority
    deadline_seconds: float
    on_behalf_of: str
    def __init__(self, query: _Optional[str] = ..., documents: _Optional[_Iterable[str]] = ..., top_n: _Optional[int] = ..., model: _Optional[str] = ..., truncate: bool = ..., priority: _Optional[_Union[_generation_pb2.Priority, str]] = ..., deadline_seconds: _Optional[float] = ..., on_behalf_of: _Optional[str] = ...) -> None: ...

class RerankResponse(_message.Message):
    __slots__ = ("results", "prompt_tokens", "model")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[RankedDocument]
    prompt_tokens: int
    model: str
    def __init__(self, results: _Optional[_Iterable[_Union[RankedDocument, _Mapping]]] = ..., prompt_tokens: _Optional[int] = ..., model: _Optional[str] = ...) -> None: ...

class RankedDocument(_message.Message):
    __slots__ = ("index", "score", "truncated_tokens")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    index: int
    score: float
    truncated_tokens: int
    def __init__(self, index: _Optional[int] = ..., score: _Optional[float] = ..., truncated_tokens: _Optional[int] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("prompt", "prompt_tokens", "parse_special", "continuations", "likeliest", "model", "priority", "deadline_seconds", "on_behalf_of", "adapter")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PARSE_SPECIAL_FIELD_NUMBER: _ClassVar[int]
    CONTINUATIONS_FIELD_NUMBER: _ClassVar[int]
    LIKELIEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ON_BEHALF_OF_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    prompt_tokens: _containers.RepeatedScalarFieldContainer[int]
    parse_special: bool
    continuations: _containers.RepeatedCompositeFieldContainer[Continuation]
    likeliest: int
    model: str
    priority: _generation_pb2.Priority
    deadline_seconds: float
    on_behalf_of: str
    adapter: _generation_pb2.Adapter
    def __init__(self, prompt: _Optional[str] = ..., prompt_tokens: _Optional[_Iterable[int]] = ..., parse_special: bool = ..., continuations: _Optional[_Iterable[_Union[Continuation, _Mapping]]] = ..., likeliest: _Optional[int] = ..., model: _Optional[str] = ..., priority: _Optional[_Union[_generation_pb2.Priority, str]] = ..., deadline_seconds: _Optional[float] = ..., on_behalf_of: _Optional[str] = ..., adapter: _Optional[_Union[_generation_pb2.Adapter, _Mapping]] = ...) -> None: ...

class Continuation(_message.Message):
    __slots__ = ("text", "tokens")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    text: str
    tokens: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, text: _Optional[str] = ..., tokens: _Optional[_Iterable[int]] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("index", "token", "scored")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SCORED_FIELD_NUMBER: _ClassVar[int]
    index: int
    token: _generation_pb2.TokenLogprob
    scored: Scored
    def __init__(self, index: _Optional[int] = ..., token: _Optional[_Union[_generation_pb2.TokenLogprob, _Mapping]] = ..., scored: _Optional[_Union[Scored, _Mapping]] = ...) -> None: ...

class Scored(_message.Message):
    __slots__ = ("logprob", "tokens", "prompt_tokens", "cached_prompt_tokens", "model")
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    logprob: float
    tokens: int
    prompt_tokens: int
    cached_prompt_tokens: int
    model: str
    def __init__(self, logprob: _Optional[float] = ..., tokens: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., cached_prompt_tokens: _Optional[int] = ..., model: _Optional[str] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("id", "state", "priority", "model", "prompt_tokens", "processed_prompt_tokens", "completion_tokens", "max_tokens", "age_seconds", "running_seconds", "finish_reason", "error", "owner_uid", "error_reason", "on_behalf_of", "durable", "idempotency_key", "queue_position", "wait_seconds", "submitted_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROCESSED_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    OWNER_UID_FIELD_NUMBER: _ClassVar[int]
    ERROR_REASON_FIELD_NUMBER: _ClassVar[int]
    ON_BEHALF_OF_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: JobState
    priority: _generation_pb2.Priority
    model: str
    prompt_tokens: int
    processed_prompt_tokens: int
    completion_tokens: int
    max_tokens: int
    age_seconds: float
    running_seconds: float
    finish_reason: _generation_pb2.FinishReason
    error: str
    owner_uid: int
    error_reason: str
    on_behalf_of: str
    durable: bool
    idempotency_key: str
    queue_position: int
    wait_seconds: float
    submitted_at: float
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[JobState, str]] = ..., priority: _Optional[_Union[_generation_pb2.Priority, str]] = ..., model: _Optional[str] = ..., prompt_tokens: _Optional[int] = ..., processed_prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., max_tokens: _Optional[int] = ..., age_seconds: _Optional[float] = ..., running_seconds: _Optional[float] = ..., finish_reason: _Optional[_Union[_generation_pb2.FinishReason, str]] = ..., error: _Optional[str] = ..., owner_uid: _Optional[int] = ..., error_reason: _Optional[str] = ..., on_behalf_of: _Optional[str] = ..., durable: bool = ..., idempotency_key: _Optional[str] = ..., queue_position: _Optional[int] = ..., wait_seconds: _Optional[float] = ..., submitted_at: _Optional[float] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("include_ended",)
    INCLUDE_ENDED_FIELD_NUMBER: _ClassVar[int]
    include_ended: bool
    def __init__(self, include_ended: bool = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class CancelJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class CancelJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class WatchJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class WatchJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class SubmitJobRequest(_message.Message):
    __slots__ = ("generate", "chat", "idempotency_key")
    GENERATE_FIELD_NUMBER: _ClassVar[int]
    CHAT_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    generate: _generation_pb2.GenerateRequest
    chat: _generation_pb2.ChatRequest
    idempotency_key: str
    def __init__(self, generate: _Optional[_Union[_generation_pb2.GenerateRequest, _Mapping]] = ..., chat: _Optional[_Union[_generation_pb2.ChatRequest, _Mapping]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class SubmitJobResponse(_message.Message):
    __slots__ = ("job", "existing")
    JOB_FIELD_NUMBER: _ClassVar[int]
    EXISTING_FIELD_NUMBER: _ClassVar[int]
    job: Job
    existing: bool
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ..., existing: bool = ...) -> None: ...

class RenderChatRequest(_message.Message):
    __slots__ = ("chat",)
    CHAT_FIELD_NUMBER: _ClassVar[int]
    chat: _generation_pb2.ChatRequest
    def __init__(self, chat: _Optional[_Union[_generation_pb2.ChatRequest, _Mapping]] = ...) -> None: ...

class RenderChatResponse(_message.Message):
    __slots__ = ("text", "tokens", "dropped_messages")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    text: str
    tokens: _containers.RepeatedScalarFieldContainer[int]
    dropped_messages: int
    def __init__(self, text: _Optional[str] = ..., tokens: _Optional[_Iterable[int]] = ..., dropped_messages: _Optional[int] = ...) -> None: ...

class ResumeJobRequest(_message.Message):
    __slots__ = ("id", "from_token", "no_wait")
    ID_FIELD_NUMBER: _ClassVar[int]
    FROM_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NO_WAIT_FIELD_NUMBER: _ClassVar[int]
    id: str
    from_token: int
    no_wait: bool
    def __init__(self, id: _Optional[str] = ..., from_token: _Optional[int] = ..., no_wait: bool = ...) -> None: ...

class ResumeJobResponse(_message.Message):
    __slots__ = ("queued", "prefill", "delta", "finished", "thinking", "tool_call")
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    PREFILL_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    THINKING_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_FIELD_NUMBER: _ClassVar[int]
    queued: _generation_pb2.Queued
    prefill: _generation_pb2.PrefillProgress
    delta: _generation_pb2.TextDelta
    finished: _generation_pb2.Finished
    thinking: _generation_pb2.ThinkingDelta
    tool_call: _generation_pb2.ToolCallDelta
    def __init__(self, queued: _Optional[_Union[_generation_pb2.Queued, _Mapping]] = ..., prefill: _Optional[_Union[_generation_pb2.PrefillProgress, _Mapping]] = ..., delta: _Optional[_Union[_generation_pb2.TextDelta, _Mapping]] = ..., finished: _Optional[_Union[_generation_pb2.Finished, _Mapping]] = ..., thinking: _Optional[_Union[_generation_pb2.ThinkingDelta, _Mapping]] = ..., tool_call: _Optional[_Union[_generation_pb2.ToolCallDelta, _Mapping]] = ...) -> None: ...

class ListPrefixesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPrefixesResponse(_message.Message):
    __slots__ = ("prefixes",)
    PREFIXES_FIELD_NUMBER: _ClassVar[int]
    prefixes: _containers.RepeatedCompositeFieldContainer[Prefix]
    def __init__(self, prefixes: _Optional[_Iterable[_Union[Prefix, _Mapping]]] = ...) -> None: ...

class Prefix(_message.Message):
    __slots__ = ("name", "model", "tokens", "bytes_on_disk", "uses", "for_everybody", "in_memory", "age_seconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    BYTES_ON_DISK_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    FOR_EVERYBODY_FIELD_NUMBER: _ClassVar[int]
    IN_MEMORY_FIELD_NUMBER: _ClassVar[int]
    AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: str
    tokens: int
    bytes_on_disk: int
    uses: int
    for_everybody: bool
    in_memory: bool
    age_seconds: float
    def __init__(self, name: _Optional[str] = ..., model: _Optional[str] = ..., tokens: _Optional[int] = ..., bytes_on_disk: _Optional[int] = ..., uses: _Optional[int] = ..., for_everybody: bool = ..., in_memory: bool = ..., age_seconds: _Optional[float] = ...) -> None: ...
