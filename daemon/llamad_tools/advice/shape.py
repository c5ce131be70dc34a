"""The shape of a model, written or to be written: its entries and tensors, its sizes as a mix.

The sizes are the engine's own, asked of the header that quantize or convert would write.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from llamad.config import ModelConfig
from llamad.engine.bindings import KV_TYPES, EngineModel, TensorInfo
from llamad.gguf.value import MetadataValue, RawEntry
from llamad.memory.context import USUAL_TOKENS
from llamad.memory.demand import capacity_of, demand_of, engine_params, memory_of, plan_of
from llamad.memory.plan import Demand, MemoryPlan
from llamad_tools.advice.planned_model import planned_model
from llamad_tools.quantize.mixes import (
    PLAIN_TYPES,
    Mix,
    MixedModel,
    describe_model,
    is_quantizable,
    tensor_type,
)


@dataclass(frozen=True, slots=True)
class MixSizes:
    """What a model takes as a mix. Bytes; n_ctx_train: tokens."""

    file_bytes: int
    streamed_bytes: int  # read for one decoded token
    n_ctx_train: int
    demands: Mapping[str, Demand]  # by KV type, of the service's other defaults


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What a file says of itself before its weights."""

    entries: Sequence[RawEntry]
    metadata: Mapping[str, MetadataValue]  # the same, decoded
    tensors: Sequence[TensorInfo]
    mixed: MixedModel

    @property
    def weights(self) -> int:
        """The number of weights, vectors included."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @property
    def quantized_types(self) -> list[str]:
        """The types of matrices that have lost something already, in alphabetical order."""
        return sorted(
            {
                tensor.type_name
                for tensor in self.tensors
                if is_quantizable(tensor.name, tensor.shape) and tensor.type_name not in PLAIN_TYPES
            }
        )

    @contextlib.contextmanager
    def opened(self, mix: Mix | None) -> Iterator[EngineModel]:
        """Open the model as a mix; None: with its own types.

        Raises LlamadError for a model that the engine does not run.
        """
        own = {tensor.name: tensor.type_name for tensor in self.tensors}
        types = own if mix is None else mix_types(self, mix)
        file_type = 0 if mix is None else mix.file_type
        with planned_model(self.entries, self.tensors, types, file_type) as model:
            yield model

    def sizes(self, mix: Mix | None, config: ModelConfig) -> MixSizes:
        """Return what the model takes as a mix, None: as it is, served as configured."""
        with self.opened(mix) as model:
            info = model.info
            n_ctx = min(info.n_ctx_train or USUAL_TOKENS, USUAL_TOKENS)
            demands = {
                kv_type: demand_of(
                    model,
                    self.metadata,
                    engine_params(replace(config, kv_type=kv_type), n_ctx),
                    capacity_of(config),
                    memory_of(config),
                )
                for kv_type in KV_TYPES
            }
            return MixSizes(info.file_bytes, info.streamed_bytes, info.n_ctx_train, demands)

    def plan(self, mix: Mix | None, config: ModelConfig) -> MemoryPlan:
        """Return the service's plan for the model as a mix. Raises OUT_OF_MEMORY."""
        with self.opened(mix) as model:
            return plan_of(model, self.metadata, config)


def describe_shape(entries: Sequence[RawEntry], tensors: Sequence[TensorInfo]) -> ModelShape:
    """Return the shape of a model file."""
    metadata = {entry.key: entry.decode() for entry in entries}
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    mixed = describe_model(metadata, shapes, has_importance=False)
    return ModelShape(entries, metadata, tensors, mixed)


def mix_types(shape: ModelShape, mix: Mix) -> Mapping[str, str]:
    """Return each tensor's type in a mix, as ``llamad quantize`` chooses it."""
    return {
        tensor.name: tensor_type(mix, tensor.name, tensor.shape, shape.mixed)
        if is_quantizable(tensor.name, tensor.shape)
        else tensor.type_name
        for tensor in shape.tensors
    }
