"""Whether a model can be loaded in place of the one that serves, asked before that one goes.

Owns what can be told without room for it: the engine opens the file, which checks its header and
where its tensors lie, and the memory is planned as if the other model had left. A vocabulary, a
template or a weight that is broken shows only when it is loaded. Blocking.
"""

from collections.abc import Mapping
from dataclasses import replace

from llamad.config import ModelConfig
from llamad.engine.bindings import EngineModel
from llamad.memory.demand import plan_of
from llamad.store.registry import ModelFile


def check_model(
    config: ModelConfig, file: ModelFile, ctx_sizes: Mapping[str, int | None], locked_bytes: int
) -> None:
    """Raise what ``load`` would raise for a file: MODEL_CORRUPT, OUT_OF_MEMORY and so on.

    ctx_sizes: of models that have one of their own, by name. locked_bytes: of the model files that
    leave memory before this one comes. Drafts and adapters are left out, as a load may do.
    """
    ctx_size = ctx_sizes.get(file.name, config.ctx_size)
    alone = replace(config, ctx_size=ctx_size, draft="")
    with EngineModel(file.path) as model:
        plan_of(model, model.metadata(), alone, locked_bytes=locked_bytes)
