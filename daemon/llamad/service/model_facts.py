"""The facts of a loaded model, for whoever asks what is served."""

import os

from llamad.service.loaded_model import LoadedModel
from llamad.service.state import ModelFacts


def facts_of(model: LoadedModel) -> ModelFacts:
    """Return a model as GetStatus and ListModels show it."""
    info, engine = model.info, model.engine_info
    return ModelFacts(
        name=model.name,
        path=os.fspath(model.path),
        architecture=info.architecture,
        file_bytes=info.file_bytes,
        locked_bytes=model.residency().locked_bytes,
        n_ctx=model.n_ctx,
        n_ctx_train=info.n_ctx_train,
        vocab_size=info.vocab_size,
        load_seconds=model.load_seconds,
        kv_type=model.kv_type,
        kv_bytes=engine.kv_bytes,
        threads=engine.n_threads,
        kernel_set=engine.kernel_set,
        plan=model.plan,
        own_sampling=model.own_sampling,
        digest=model.digest,
        draft=model.draft_name,
        draft_path="" if model.draft is None else os.fspath(model.draft.path),
        draft_fault=model.draft_fault,
        recommended_sampling=model.recommended_sampling,
        adapters=model.adapters.told(),
        adapter_times=model.adapters.times,
    )
