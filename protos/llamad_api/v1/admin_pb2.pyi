from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "path", "file_bytes", "loaded", "selected", "is_adapter", "base")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOADED_FIELD_NUMBER: _ClassVar[int]
    SELECTED_FIELD_NUMBER: _ClassVar[int]
    IS_ADAPTER_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    name: str
    path: str
    file_bytes: int
    loaded: bool
    selected: bool
    is_adapter: bool
    base: str
    def __init__(self, name: _Optional[str] = ..., path: _Optional[str] = ..., file_bytes: _Optional[int] = ..., loaded: bool = ..., selected: bool = ..., is_adapter: bool = ..., base: _Optional[str] = ...) -> None: ...

class AddModelRequest(_message.Message):
    __slots__ = ("start", "chunk")
    class Start(_message.Message):
        __slots__ = ("name", "file_bytes", "sha256", "source", "replace", "recommended_sampling")
        class RecommendedSamplingEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: float
            def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
        NAME_FIELD_NUMBER: _ClassVar[int]
        FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
        SHA256_FIELD_NUMBER: _ClassVar[int]
        SOURCE_FIELD_NUMBER: _ClassVar[int]
        REPLACE_FIELD_NUMBER: _ClassVar[int]
        RECOMMENDED_SAMPLING_FIELD_NUMBER: _ClassVar[int]
        name: str
        file_bytes: int
        sha256: str
        source: str
        replace: bool
        recommended_sampling: _containers.ScalarMap[str, float]
        def __init__(self, name: _Optional[str] = ..., file_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., source: _Optional[str] = ..., replace: bool = ..., recommended_sampling: _Optional[_Mapping[str, float]] = ...) -> None: ...
    class Chunk(_message.Message):
        __slots__ = ("offset", "data")
        OFFSET_FIELD_NUMBER: _ClassVar[int]
        DATA_FIELD_NUMBER: _ClassVar[int]
        offset: int
        data: bytes
        def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...
    START_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    start: AddModelRequest.Start
    chunk: AddModelRequest.Chunk
    def __init__(self, start: _Optional[_Union[AddModelRequest.Start, _Mapping]] = ..., chunk: _Optional[_Union[AddModelRequest.Chunk, _Mapping]] = ...) -> None: ...

class AddModelResponse(_message.Message):
    __slots__ = ("accepted", "done")
    class Accepted(_message.Message):
        __slots__ = ("offset",)
        OFFSET_FIELD_NUMBER: _ClassVar[int]
        offset: int
        def __init__(self, offset: _Optional[int] = ...) -> None: ...
    class Done(_message.Message):
        __slots__ = ("model", "sha256", "unchanged")
        MODEL_FIELD_NUMBER: _ClassVar[int]
        SHA256_FIELD_NUMBER: _ClassVar[int]
        UNCHANGED_FIELD_NUMBER: _ClassVar[int]
        model: Model
        sha256: str
        unchanged: bool
        def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., sha256: _Optional[str] = ..., unchanged: bool = ...) -> None: ...
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    accepted: AddModelResponse.Accepted
    done: AddModelResponse.Done
    def __init__(self, accepted: _Optional[_Union[AddModelResponse.Accepted, _Mapping]] = ..., done: _Optional[_Union[AddModelResponse.Done, _Mapping]] = ...) -> None: ...

class UseModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class UseModelResponse(_message.Message):
    __slots__ = ("model", "load_seconds")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    model: Model
    load_seconds: float
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., load_seconds: _Optional[float] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AddPrefixRequest(_message.Message):
    __slots__ = ("name", "system", "prompt")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    name: str
    system: str
    prompt: str
    def __init__(self, name: _Optional[str] = ..., system: _Optional[str] = ..., prompt: _Optional[str] = ...) -> None: ...

class AddPrefixResponse(_message.Message):
    __slots__ = ("progress", "done")
    class Progress(_message.Message):
        __slots__ = ("processed_tokens", "tokens")
        PROCESSED_TOKENS_FIELD_NUMBER: _ClassVar[int]
        TOKENS_FIELD_NUMBER: _ClassVar[int]
        processed_tokens: int
        tokens: int
        def __init__(self, processed_tokens: _Optional[int] = ..., tokens: _Optional[int] = ...) -> None: ...
    class Done(_message.Message):
        __slots__ = ("tokens", "bytes_on_disk")
        TOKENS_FIELD_NUMBER: _ClassVar[int]
        BYTES_ON_DISK_FIELD_NUMBER: _ClassVar[int]
        tokens: int
        bytes_on_disk: int
        def __init__(self, tokens: _Optional[int] = ..., bytes_on_disk: _Optional[int] = ...) -> None: ...
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    progress: AddPrefixResponse.Progress
    done: AddPrefixResponse.Done
    def __init__(self, progress: _Optional[_Union[AddPrefixResponse.Progress, _Mapping]] = ..., done: _Optional[_Union[AddPrefixResponse.Done, _Mapping]] = ...) -> None: ...

class RemovePrefixRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RemovePrefixResponse(_message.Message):
    __slots__ = ("freed_bytes",)
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    freed_bytes: int
    def __init__(self, freed_bytes: _Optional[int] = ...) -> None: ...

class RemoveModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RemoveModelResponse(_message.Message):
    __slots__ = ("freed_bytes",)
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    freed_bytes: int
    def __init__(self, freed_bytes: _Optional[int] = ...) -> None: ...
