"""Talk to the llamad service on this machine.

    from llamad_client import Client

    with Client() as client:
        for piece in client.chat([{"role": "user", "content": "Why is the sky blue?"}]):
            print(piece, end="", flush=True)

``AsyncClient`` is the same for asyncio. Every error is a ``ClientError``, whose text is one line.
This package needs nothing of the daemon: only the generated interface and grpc.
"""

from llamad_client.address import each_address
from llamad_client.aio import AsyncClient, AsyncCompletion
from llamad_client.answers import Answer
from llamad_client.client import Client, Completion
from llamad_client.errors import (
    ClientError,
    Failed,
    NoPermission,
    NotRunning,
    Refused,
    ServiceUnreachable,
    StillLoading,
)
from llamad_client.loaded_model import LoadedModel, MemoryPlan
from llamad_client.scores import Score
from llamad_client.values import (
    AdapterStatus,
    AddedModel,
    AddedPrefix,
    Board,
    DraftModel,
    Event,
    Job,
    MetadataEntry,
    Model,
    ModelDetails,
    PrefillProgress,
    Prefix,
    PrefixCache,
    Queued,
    RenderedChat,
    Result,
    Setting,
    Status,
    SubmittedJob,
    TextDelta,
    ThinkingDelta,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    UsedModel,
    Version,
)
from llamad_client.vectors import Embedding, RankedDocument, Ranking

__version__ = "0.1.0"

for _error in (
    ClientError,
    Failed,
    NoPermission,
    NotRunning,
    Refused,
    ServiceUnreachable,
    StillLoading,
):
    _error.__module__ = __name__  # a traceback names it as a program imports it

__all__ = [
    "AdapterStatus",
    "AddedModel",
    "AddedPrefix",
    "Answer",
    "AsyncClient",
    "AsyncCompletion",
    "Board",
    "Client",
    "ClientError",
    "Completion",
    "DraftModel",
    "Embedding",
    "Event",
    "Failed",
    "Job",
    "LoadedModel",
    "MemoryPlan",
    "MetadataEntry",
    "Model",
    "ModelDetails",
    "NoPermission",
    "NotRunning",
    "PrefillProgress",
    "Prefix",
    "PrefixCache",
    "Queued",
    "RankedDocument",
    "Ranking",
    "Refused",
    "RenderedChat",
    "Result",
    "Score",
    "ServiceUnreachable",
    "Setting",
    "Status",
    "StillLoading",
    "SubmittedJob",
    "TextDelta",
    "ThinkingDelta",
    "Timings",
    "TokenLogprob",
    "ToolCallDelta",
    "UsedModel",
    "Version",
    "each_address",
]
