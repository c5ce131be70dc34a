from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

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
    __slots__ = ("name", "path", "file_bytes", "loaded", "title", "architecture", "licence", "parameters", "quantization", "n_ctx_train", "n_ctx", "has_chat_template", "chat_template", "settings", "metadata", "digest", "modified_at", "capabilities")
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
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODIFIED_AT_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
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
    digest: str
    modified_at: float
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., path: _Optional[str] = ..., file_bytes: _Optional[int] = ..., loaded: bool = ..., title: _Optional[str] = ..., architecture: _Optional[str] = ..., licence: _Optional[str] = ..., parameters: _Optional[int] = ..., quantization: _Optional[str] = ..., n_ctx_train: _Optional[int] = ..., n_ctx: _Optional[int] = ..., has_chat_template: bool = ..., chat_template: _Optional[str] = ..., settings: _Optional[_Iterable[_Union[Setting, _Mapping]]] = ..., metadata: _Optional[_Iterable[_Union[MetadataEntry, _Mapping]]] = ..., digest: _Optional[str] = ..., modified_at: _Optional[float] = ..., capabilities: _Optional[_Iterable[str]] = ...) -> None: ...

class Setting(_message.Message):
    __slots__ = ("name", "value", "source")
    class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SOURCE_UNSPECIFIED: _ClassVar[Setting.Source]
        SOURCE_MODEL_SECTION: _ClassVar[Setting.Source]
        SOURCE_MODEL_FILE: _ClassVar[Setting.Source]
        SOURCE_CONFIGURATION: _ClassVar[Setting.Source]
        SOURCE_BUILT_IN: _ClassVar[Setting.Source]
        SOURCE_RECOMMENDED: _ClassVar[Setting.Source]
    SOURCE_UNSPECIFIED: Setting.Source
    SOURCE_MODEL_SECTION: Setting.Source
    SOURCE_MODEL_FILE: Setting.Source
    SOURCE_CONFIGURATION: Setting.Source
    SOURCE_BUILT_IN: Setting.Source
    SOURCE_RECOMMENDED: Setting.Source
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
    __slots__ = ("state", "detail", "uptime_seconds", "model", "jobs_queued", "jobs_running", "queue_capacity", "sequence_slots", "kv_bytes", "kv_blocks_total", "kv_blocks_free", "requests_finished", "generated_tokens", "prompt_tokens", "threads", "kernel_set", "memory", "kv_blocks_cached", "prefix", "board", "jobs_stored", "durability", "draft", "adapters")
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
    KV_BLOCKS_CACHED_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    BOARD_FIELD_NUMBER: _ClassVar[int]
    JOBS_STORED_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
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
    kv_blocks_cached: int
    prefix: PrefixCache
    board: Board
    jobs_stored: int
    durability: str
    draft: DraftModel
    adapters: _containers.RepeatedCompositeFieldContainer[AdapterStatus]
    def __init__(self, state: _Optional[_Union[GetStatusResponse.State, str]] = ..., detail: _Optional[str] = ..., uptime_seconds: _Optional[float] = ..., model: _Optional[_Union[LoadedModel, _Mapping]] = ..., jobs_queued: _Optional[int] = ..., jobs_running: _Optional[int] = ..., queue_capacity: _Optional[int] = ..., sequence_slots: _Optional[int] = ..., kv_bytes: _Optional[int] = ..., kv_blocks_total: _Optional[int] = ..., kv_blocks_free: _Optional[int] = ..., requests_finished: _Optional[int] = ..., generated_tokens: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., threads: _Optional[int] = ..., kernel_set: _Optional[str] = ..., memory: _Optional[_Union[MemoryPlan, _Mapping]] = ..., kv_blocks_cached: _Optional[int] = ..., prefix: _Optional[_Union[PrefixCache, _Mapping]] = ..., board: _Optional[_Union[Board, _Mapping]] = ..., jobs_stored: _Optional[int] = ..., durability: _Optional[str] = ..., draft: _Optional[_Union[DraftModel, _Mapping]] = ..., adapters: _Optional[_Iterable[_Union[AdapterStatus, _Mapping]]] = ...) -> None: ...

class AdapterStatus(_message.Message):
    __slots__ = ("name", "fault")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    name: str
    fault: str
    def __init__(self, name: _Optional[str] = ..., fault: _Optional[str] = ...) -> None: ...

class PrefixCache(_message.Message):
    __slots__ = ("hits", "misses", "tokens_reused", "bytes_on_disk", "bytes_written", "bytes_read")
    HITS_FIELD_NUMBER: _ClassVar[int]
    MISSES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_REUSED_FIELD_NUMBER: _ClassVar[int]
    BYTES_ON_DISK_FIELD_NUMBER: _ClassVar[int]
    BYTES_WRITTEN_FIELD_NUMBER: _ClassVar[int]
    BYTES_READ_FIELD_NUMBER: _ClassVar[int]
    hits: int
    misses: int
    tokens_reused: int
    bytes_on_disk: int
    bytes_written: int
    bytes_read: int
    def __init__(self, hits: _Optional[int] = ..., misses: _Optional[int] = ..., tokens_reused: _Optional[int] = ..., bytes_on_disk: _Optional[int] = ..., bytes_written: _Optional[int] = ..., bytes_read: _Optional[int] = ...) -> None: ...

class Board(_message.Message):
    __slots__ = ("temperature_celsius", "throttled", "under_voltage", "throttled_before", "under_voltage_before")
    TEMPERATURE_CELSIUS_FIELD_NUMBER: _ClassVar[int]
    THROTTLED_FIELD_NUMBER: _ClassVar[int]
    UNDER_VOLTAGE_FIELD_NUMBER: _ClassVar[int]
    THROTTLED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    UNDER_VOLTAGE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    temperature_celsius: float
    throttled: bool
    under_voltage: bool
    throttled_before: bool
    under_voltage_before: bool
    def __init__(self, temperature_celsius: _Optional[float] = ..., throttled: bool = ..., under_voltage: bool = ..., throttled_before: bool = ..., under_voltage_before: bool = ...) -> None: ...

class DraftModel(_message.Message):
    __slots__ = ("name", "guessed_tokens", "accepted_tokens", "paused", "fault")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GUESSED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    name: str
    guessed_tokens: int
    accepted_tokens: int
    paused: bool
    fault: str
    def __init__(self, name: _Optional[str] = ..., guessed_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ..., paused: bool = ..., fault: _Optional[str] = ...) -> None: ...

class MemoryPlan(_message.Message):
    __slots__ = ("budget_bytes", "process_bytes", "connections_bytes", "template_bytes", "vocabulary_bytes", "samplers_bytes", "scratch_bytes", "kv_bytes", "resident_bytes", "streamed_bytes", "lockable_bytes", "kv_blocks", "on_demand_bytes", "streaming_bytes", "draft_bytes", "kv_local_blocks", "draft_local_blocks", "adapters_bytes", "expert_bytes", "token_read_bytes")
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
    DRAFT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_LOCAL_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    DRAFT_LOCAL_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXPERT_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_READ_BYTES_FIELD_NUMBER: _ClassVar[int]
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
    draft_bytes: int
    kv_local_blocks: int
    draft_local_blocks: int
    adapters_bytes: int
    expert_bytes: int
    token_read_bytes: int
    def __init__(self, budget_bytes: _Optional[int] = ..., process_bytes: _Optional[int] = ..., connections_bytes: _Optional[int] = ..., template_bytes: _Optional[int] = ..., vocabulary_bytes: _Optional[int] = ..., samplers_bytes: _Optional[int] = ..., scratch_bytes: _Optional[int] = ..., kv_bytes: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., streamed_bytes: _Optional[int] = ..., lockable_bytes: _Optional[int] = ..., kv_blocks: _Optional[int] = ..., on_demand_bytes: _Optional[int] = ..., streaming_bytes: _Optional[int] = ..., draft_bytes: _Optional[int] = ..., kv_local_blocks: _Optional[int] = ..., draft_local_blocks: _Optional[int] = ..., adapters_bytes: _Optional[int] = ..., expert_bytes: _Optional[int] = ..., token_read_bytes: _Optional[int] = ...) -> None: ...

class LoadedModel(_message.Message):
    __slots__ = ("name", "path", "architecture", "file_bytes", "locked_bytes", "n_ctx", "n_ctx_train", "vocab_size", "load_seconds", "kv_type", "streamed_bytes", "bytes_read_per_token", "seconds_per_token", "disk_read_bytes_per_second", "share_of_disk_time_hidden", "expert_uses", "expert_hits")
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
    EXPERT_USES_FIELD_NUMBER: _ClassVar[int]
    EXPERT_HITS_FIELD_NUMBER: _ClassVar[int]
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
    expert_uses: int
    expert_hits: int
    def __init__(self, name: _Optional[str] = ..., path: _Optional[str] = ..., architecture: _Optional[str] = ..., file_bytes: _Optional[int] = ..., locked_bytes: _Optional[int] = ..., n_ctx: _Optional[int] = ..., n_ctx_train: _Optional[int] = ..., vocab_size: _Optional[int] = ..., load_seconds: _Optional[float] = ..., kv_type: _Optional[str] = ..., streamed_bytes: _Optional[int] = ..., bytes_read_per_token: _Optional[int] = ..., seconds_per_token: _Optional[float] = ..., disk_read_bytes_per_second: _Optional[float] = ..., share_of_disk_time_hidden: _Optional[float] = ..., expert_uses: _Optional[int] = ..., expert_hits: _Optional[int] = ...) -> None: ...

class GetMetricsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetMetricsResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

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
