"""Opening a model with its layer that guesses tokens, where memory has room for it."""

import logging
from pathlib import Path

from llamad.config import ModelConfig
from llamad.engine.bindings import EngineModel
from llamad.errors import LlamadError
from llamad.logs import fields
from llamad.memory.demand import plan_of

logger = logging.getLogger(__name__)


def open_model(path: Path, config: ModelConfig) -> tuple[EngineModel, str]:
    """Map a model as it is served; return why its layer that guesses is left out, mostly nothing.

    The layer stays in memory whole and is never worth streaming the rest: it is used only where
    everything fits. Raises LlamadError as ``EngineModel`` does.
    """
    if not config.multi_token_prediction or config.draft:
        return EngineModel(path), ""
    try:
        model = EngineModel(path, guesses=True)
    except LlamadError as error:
        return EngineModel(path), _left_out(path, error.message)  # or the file's fault again
    if not model.info.n_guess_layers:
        return model, ""
    try:
        fits = plan_of(model, model.metadata(), config).model_fits
    except LlamadError:
        fits = False
    if fits:
        return model, ""
    model.close()
    return EngineModel(path), _left_out(path, "no room for it beside the model")


def _left_out(path: Path, fault: str) -> str:
    logger.warning(fields("layer that guesses left out", model=path.stem, reason=fault))
    return fault
