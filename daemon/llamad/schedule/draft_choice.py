"""What guesses for a loaded model: a draft model, else a layer of its own, else nothing."""

from llamad.schedule.blocks import BlockPool
from llamad.schedule.draft import DraftPlanner
from llamad.schedule.draft_layer import DraftLayer
from llamad.schedule.draft_model import DraftModel
from llamad.schedule.runtime import ModelRuntime
from llamad.schedule.speculation import Speculation


def planner_of(
    model: ModelRuntime, pool: BlockPool, speculation: Speculation
) -> DraftPlanner | None:
    """Return what plans the guesses; pool: of the model's blocks."""
    if model.draft is not None:
        return DraftModel(model.draft, speculation)
    if model.guess_layer is not None:
        return DraftLayer(model.guess_layer, model, pool)
    return None
