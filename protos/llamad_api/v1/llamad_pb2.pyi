from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_INTERACTIVE: _ClassVar[Priority]
    PRIORITY_NORMAL: _ClassVar[Priority]
    PRIORITY_BATCH: _ClassVar[Priority]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_STOP_STRING: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_CANCELLED: _ClassVar[FinishReason]
    FINISH_REASON_LOOP: _ClassVar[FinishReason]

class ContextFull(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONTEXT_FULL_UNSPECIFIED: _ClassVar[ContextFull]
    CONTEXT_FULL_REFUSE: _ClassVar[ContextFull]
    CONTEXT_FULL_DROP_OLDEST: _ClassVar[ContextFull]

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_QUEUED: _ClassVar[JobState]
    JOB_STATE_PREFILL: _ClassVar[JobState]
    JOB_STATE_DECODE: _ClassVar[JobState]
    JOB_STATE_FINISHED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
PRIORITY_UNSPECIFIED: Priority
PRIORITY_INTERACTIVE: Priority
PRIORITY_NORMAL: Priority
PRIORITY_BATCH: Priority
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_STOP_STRING: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_CANCELLED: FinishReason
FINISH_REASON_LOOP: FinishReason
CONTEXT_FULL_UNSPECIFIED: ContextFull
CONTEXT_FULL_REFUSE: ContextFull
CONTEXT_FULL_DROP_OLDEST: ContextFull
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_PREFILL: JobState
JOB_STATE_DECODE: JobState
JOB_STATE_FINISHED: JobState
JOB_STATE_CANCELLED: JobState
JOB_STATE_FAILED: JobState

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty", "repeat_last_n", "presence_penalty", "frequency_penalty", "seed", "logit_bias", "penalize_prompt")
    class LogitBiasEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: float
        def __init__(self, key: _Optional[int] = ..., value: _Optional[float] = ...) -> None: ...
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    TYPICAL_P_FIELD_NUMBER: _ClassVar[int]
    REPEAT_PENALTY_FIELD_NUMBER: _ClassVar[int]
    REPEAT_LAST_N_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_PENALTY_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_PENALTY_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    LOGIT_BIAS_FIELD_NUMBER: _ClassVar[int]
    PENALIZE_PROMPT_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repeat_penalty: float
    repeat_last_n: int
    presence_penalty: float
    frequency_penalty: float
    seed: int
    logit_bias: _containers.ScalarMap[int, float]
    penalize_prompt: bool
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., min_p: _Optional[float] = ..., typical_p: _Optional[float] = ..., repeat_penalty: _Optional[float] = ..., repeat_last_n: _Optional[int] = ..., presence_penalty: _Optional[float] = ..., frequency_penalty: _Optional[float] = ..., seed: _Optional[int] = ..., logit_bias: _Optional[_Mapping[int, float]] = ..., penalize_prompt: bool = ...) -> None: ...

class Options(_message.Message):
    __slots__ = ("model", "max_tokens", "stop", "sampling", "priority", "deadline_seconds", "speculation", "template_arguments", "loop_guard")
    class TemplateArgumentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SPECULATION_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    LOOP_GUARD_FIELD_NUMBER: _ClassVar[int]
    model: str
    max_tokens: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    sampling: Sampling
    priority: Priority
    deadline_seconds: float
    speculation: bool
    template_arguments: _containers.ScalarMap[str, str]
    loop_guard: bool
    def __init__(self, model: _Optional[str] = ..., max_tokens: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., priority: _Optional[_Union[Priority, str]] = ..., deadline_seconds: _Optional[float] = ..., speculation: bool = ..., template_arguments: _Optional[_Mapping[str, str]] = ..., loop_guard: bool = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("prompt", "parse_special", "options")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    PARSE_SPECIAL_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    parse_special: bool
    options: Options
    def __init__(self, prompt: _Optional[str] = ..., parse_special: bool = ..., options: _Optional[_Union[Options, _Mapping]] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("role", "content")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: str
    def __init__(self, role: _Optional[str] = ..., content: _Optional[str] = ...) -> None: ...

class ChatRequest(_message.Message):
    __slots__ = ("messages", "options", "context_full")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FULL_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    options: Options
    context_full: ContextFull
    def __init__(self, messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., options: _Optional[_Union[Options, _Mapping]] = ..., context_full: _Optional[_Union[ContextFull, str]] = ...) -> None: ...

class Queued(_message.Message):
    __slots__ = ("job_id", "queue_position", "prompt_tokens", "dropped_messages", "substitute_template")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    SUBSTITUTE_TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    queue_position: int
    prompt_tokens: int
    dropped_messages: int
    substitute_template: str
    def __init__(self, job_id: _Optional[str] = ..., queue_position: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., dropped_messages: _Optional[int] = ..., substitute_template: _Optional[str] = ...) -> None: ...

class PrefillProgress(_message.Message):
    __slots__ = ("processed_tokens", "prompt_tokens")
    PROCESSED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    processed_tokens: int
    prompt_tokens: int
    def __init__(self, processed_tokens: _Optional[int] = ..., prompt_tokens: _Optional[int] = ...) -> None: ...

class TextDelta(_message.Message):
    __slots__ = ("text", "tokens")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    text: str
    tokens: int
    def __init__(self, text: _Optional[str] = ..., tokens: _Optional[int] = ...) -> None: ...

class ThinkingDelta(_message.Message):
    __slots__ = ("text", "tokens")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    text: str
    tokens: int
    def __init__(self, text: _Optional[str] = ..., tokens: _Optional[int] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("prompt_tokens", "completion_tokens", "cached_prompt_tokens", "reasoning_tokens")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REASONING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    completion_tokens: int
    cached_prompt_tokens: int
    reasoning_tokens: int
    def __init__(self, prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., cached_prompt_tokens: _Optional[int] = ..., reasoning_tokens: _Optional[int] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queue_seconds", "prefill_seconds", "decode_seconds", "time_to_first_token_seconds", "time_per_output_token_seconds", "load_seconds")
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DECODE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TIME_PER_OUTPUT_TOKEN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    queue_seconds: float
    prefill_seconds: float
    decode_seconds: float
    time_to_first_token_seconds: float
    time_per_output_token_seconds: float
    load_seconds: float
    def __init__(self, queue_seconds: _Optional[float] = ..., prefill_seconds: _Optional[float] = ..., decode_seconds: _Optional[float] = ..., time_to_first_token_seconds: _Optional[float] = ..., time_per_output_token_seconds: _Optional[float] = ..., load_seconds: _Optional[float] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("reason", "usage", "timings", "seed", "job_id", "model", "stop_string", "dropped_messages", "context_full")
    REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STOP_STRING_FIELD_NUMBER: _ClassVar[int]
    DROPPED_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FULL_FIELD_NUMBER: _ClassVar[int]
    reason: FinishReason
    usage: Usage
    timings: Timings
    seed: int
    job_id: str
    model: str
    stop_string: str
    dropped_messages: int
    context_full: bool
    def __init__(self, reason: _Optional[_Union[FinishReason, str]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., seed: _Optional[int] = ..., job_id: _Optional[str] = ..., model: _Optional[str] = ..., stop_string: _Optional[str] = ..., dropped_messages: _Optional[int] = ..., context_full: bool = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("queued", "prefill", "delta", "finished")
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    PREFILL_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    queued: Queued
    prefill: PrefillProgress
    delta: TextDelta
    finished: Finished
    def __init__(self, queued: _Optional[_Union[Queued, _Mapping]] = ..., prefill: _Optional[_Union[PrefillProgress, _Mapping]] = ..., delta: _Optional[_Union[TextDelta, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ...) -> None: ...

class ChatResponse(_message.Message):
    __slots__ = ("queued", "prefill", "delta", "finished", "thinking")
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    PREFILL_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    THINKING_FIELD_NUMBER: _ClassVar[int]
    queued: Queued
    prefill: PrefillProgress
    delta: TextDelta
    finished: Finished
    thinking: ThinkingDelta
    def __init__(self, queued: _Optional[_Union[Queued, _Mapping]] = ..., prefill: _Optional[_Union[PrefillProgress, _Mapping]] = ..., delta: _Optional[_Union[TextDelta, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ..., thinking: _Optional[_Union[ThinkingDelta, _Mapping]] = ...) -> None: ...

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

class Job(_message.Message):
    __slots__ = ("id", "state", "priority", "model", "prompt_tokens", "processed_prompt_tokens", "completion_tokens", "max_tokens", "age_seconds", "running_seconds", "finish_reason", "error", "owner_uid", "error_reason")
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
    id: str
    state: JobState
    priority: Priority
    model: str
    prompt_tokens: int
    processed_prompt_tokens: int
    completion_tokens: int
    max_tokens: int
    age_seconds: float
    running_seconds: float
    finish_reason: FinishReason
    error: str
    owner_uid: int
    error_reason: str
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[JobState, str]] = ..., priority: _Optional[_Union[Priority, str]] = ..., model: _Optional[str] = ..., prompt_tokens: _Optional[int] = ..., processed_prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., max_tokens: _Optional[int] = ..., age_seconds: _Optional[float] = ..., running_seconds: _Optional[float] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., error: _Optional[str] = ..., owner_uid: _Optional[int] = ..., error_reason: _Optional[str] = ...) -> None: ...

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

class GetModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: ModelDetails
    def __init__(self, model: _Optional[_Union[ModelDetails, _Mapping]] = ...) -> None: ...

class ModelDetails(_message.Message):
    __slots__ = ("name", "path", "file_bytes", "loaded", "title", "architecture", "licence", "parameters", "quantization", "n_ctx_train", "n_ctx", "has_chat_template", "chat_template", "settings", "metadata")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOADED_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    N_CTX_TRAIN_FIELD_NUMBER: _ClassVar[int]
    N_CTX_FIELD_NUMBER: _ClassVar[int]
    HAS_CHAT_TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    CHAT_TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
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
    n_ctx: int
    has_chat_template: bool
    chat_template: str
    settings: _containers.RepeatedCompositeFieldContainer[Setting]
    metadata: _containers.RepeatedCompositeFieldContainer[MetadataEntry]
    def __init__(self, name: _Optional[str] = ..., path: _Optional[str] = ..., file_bytes: _Optional[int] = ..., loaded: bool = ..., title: _Optional[str] = ..., architecture: _Optional[str] = ..., licence: _Optional[str] = ..., parameters: _Optional[int] = ..., quantization: _Optional[str] = ..., n_ctx_train: _Optional[int] = ..., n_ctx: _Optional[int] = ..., has_chat_template: bool = ..., chat_template: _Optional[str] = ..., settings: _Optional[_Iterable[_Union[Setting, _Mapping]]] = ..., metadata: _Optional[_Iterable[_Union[MetadataEntry, _Mapping]]] = ...) -> None: ...

class Setting(_message.Message):
    __slots__ = ("name", "value", "source")
    class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SOURCE_UNSPECIFIED: _ClassVar[Setting.Source]
        SOURCE_MODEL_SECTION: _ClassVar[Setting.Source]
        SOURCE_MODEL_FILE: _ClassVar[Setting.Source]
        SOURCE_CONFIGURATION: _ClassVar[Setting.Source]
        SOURCE_BUILT_IN: _ClassVar[Setting.Source]
    SOURCE_UNSPECIFIED: Setting.Source
    SOURCE_MODEL_SECTION: Setting.Source
    SOURCE_MODEL_FILE: Setting.Source
    SOURCE_CONFIGURATION: Setting.Source
    SOURCE_BUILT_IN: Setting.Source
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    source: Setting.Source
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ..., source: _Optional[_Union[Setting.Source, str]] = ...) -> None: ...

class MetadataEntry(_message.Message):
    __slots__ = ("key", "value", "length")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    length: int
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ..., length: _Optional[int] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("state", "detail", "uptime_seconds", "model", "jobs_queued", "jobs_running", "queue_capacity", "sequence_slots", "kv_bytes", "kv_blocks_total", "kv_blocks_free", "requests_finished", "generated_tokens", "prompt_tokens", "threads", "kernel_set", "memory")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[GetStatusResponse.State]
        STATE_LOADING: _ClassVar[GetStatusResponse.State]
        STATE_READY: _ClassVar[GetStatusResponse.State]
        STATE_NO_MODEL: _ClassVar[GetStatusResponse.State]
        STATE_FAILED: _ClassVar[GetStatusResponse.State]
        STATE_STOPPING: _ClassVar[GetStatusResponse.State]
    STATE_UNSPECIFIED: GetStatusResponse.State
    STATE_LOADING: GetStatusResponse.State
    STATE_READY: GetStatusResponse.State
    STATE_NO_MODEL: GetStatusResponse.State
    STATE_FAILED: GetStatusResponse.State
    STATE_STOPPING: GetStatusResponse.State
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    JOBS_QUEUED_FIELD_NUMBER: _ClassVar[int]
    JOBS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    QUEUE_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_SLOTS_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_BLOCKS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    KV_BLOCKS_FREE_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FINISHED_FIELD_NUMBER: _ClassVar[int]
    GENERATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_SET_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    state: GetStatusResponse.State
    detail: str
    uptime_seconds: float
    model: LoadedModel
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
    memory: MemoryPlan
    def __init__(self, state: _Optional[_Union[GetStatusResponse.State, str]] = ..., detail: _Optional[str] = ..., uptime_seconds: _Optional[float] = ..., model: _Optional[_Union[LoadedModel, _Mapping]] = ..., jobs_queued: _Optional[int] = ..., jobs_running: _Optional[int] = ..., queue_capacity: _Optional[int] = ..., sequence_slots: _Optional[int] = ..., kv_bytes: _Optional[int] = ..., kv_blocks_total: _Optional[int] = ..., kv_blocks_free: _Optional[int] = ..., requests_finished: _Optional[int] = ..., generated_tokens: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., threads: _Optional[int] = ..., kernel_set: _Optional[str] = ..., memory: _Optional[_Union[MemoryPlan, _Mapping]] = ...) -> None: ...

class MemoryPlan(_message.Message):
    __slots__ = ("budget_bytes", "process_bytes", "connections_bytes", "template_bytes", "vocabulary_bytes", "samplers_bytes", "scratch_bytes", "kv_bytes", "resident_bytes", "streamed_bytes", "lockable_bytes", "kv_blocks", "on_demand_bytes", "streaming_bytes")
    BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROCESS_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_BYTES_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SAMPLERS_BYTES_FIELD_NUMBER: _ClassVar[int]
    SCRATCH_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    STREAMED_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOCKABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    ON_DEMAND_BYTES_FIELD_NUMBER: _ClassVar[int]
    STREAMING_BYTES_FIELD_NUMBER: _ClassVar[int]
    budget_bytes: int
    process_bytes: int
    connections_bytes: int
    template_bytes: int
    vocabulary_bytes: int
    samplers_bytes: int
    scratch_bytes: int
    kv_bytes: int
    resident_bytes: int
    streamed_bytes: int
    lockable_bytes: int
    kv_blocks: int
    on_demand_bytes: int
    streaming_bytes: int
    def __init__(self, budget_bytes: _Optional[int] = ..., process_bytes: _Optional[int] = ..., connections_bytes: _Optional[int] = ..., template_bytes: _Optional[int] = ..., vocabulary_bytes: _Optional[int] = ..., samplers_bytes: _Optional[int] = ..., scratch_bytes: _Optional[int] = ..., kv_bytes: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., streamed_bytes: _Optional[int] = ..., lockable_bytes: _Optional[int] = ..., kv_blocks: _Optional[int] = ..., on_demand_bytes: _Optional[int] = ..., streaming_bytes: _Optional[int] = ...) -> None: ...

class LoadedModel(_message.Message):
    __slots__ = ("name", "path", "architecture", "file_bytes", "locked_bytes", "n_ctx", "n_ctx_train", "vocab_size", "load_seconds", "kv_type", "streamed_bytes", "bytes_read_per_token", "seconds_per_token", "disk_read_bytes_per_second", "share_of_disk_time_hidden")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOCKED_BYTES_FIELD_NUMBER: _ClassVar[int]
    N_CTX_FIELD_NUMBER: _ClassVar[int]
    N_CTX_TRAIN_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    KV_TYPE_FIELD_NUMBER: _ClassVar[int]
    STREAMED_BYTES_FIELD_NUMBER: _ClassVar[int]
    BYTES_READ_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SECONDS_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DISK_READ_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    SHARE_OF_DISK_TIME_HIDDEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    path: str
    architecture: str
    file_bytes: int
    locked_bytes: int
    n_ctx: int
    n_ctx_train: int
    vocab_size: int
    load_seconds: float
    kv_type: str
    streamed_bytes: int
    bytes_read_per_token: int
    seconds_per_token: float
    disk_read_bytes_per_second: float
    share_of_disk_time_hidden: float
    def __init__(self, name: _Optional[str] = ..., path: _Optional[str] = ..., architecture: _Optional[str] = ..., file_bytes: _Optional[int] = ..., locked_bytes: _Optional[int] = ..., n_ctx: _Optional[int] = ..., n_ctx_train: _Optional[int] = ..., vocab_size: _Optional[int] = ..., load_seconds: _Optional[float] = ..., kv_type: _Optional[str] = ..., streamed_bytes: _Optional[int] = ..., bytes_read_per_token: _Optional[int] = ..., seconds_per_token: _Optional[float] = ..., disk_read_bytes_per_second: _Optional[float] = ..., share_of_disk_time_hidden: _Optional[float] = ...) -> None: ...

class GetVersionRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetVersionResponse(_message.Message):
    __slots__ = ("version", "engine_version", "api_version")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_VERSION_FIELD_NUMBER: _ClassVar[int]
    API_VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    engine_version: str
    api_version: str
    def __init__(self, version: _Optional[str] = ..., engine_version: _Optional[str] = ..., api_version: _Optional[str] = ...) -> None: ...
