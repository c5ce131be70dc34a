"""A file of low-rank adapters (LoRA) in memory, beside the model that it belongs to."""

from os import PathLike

from llamad._engine import ffi, lib
from llamad.engine.bindings.handle import Handle
from llamad.engine.bindings.model import EngineModel
from llamad.engine.bindings.status import check, path_argument
from llamad.engine.info import AdapterInfo

MAX_RANK = 256  # LLD_ADAPTER_RANK_MAX


class Adapter(Handle):
    """What a file adds to matrices of a model, for the runs that name it (``Run.adapter``)."""

    def __init__(self, model: EngineModel, path: str | PathLike[str]) -> None:
        """Read an adapter whole; any thread. Raises EngineError, see lld_adapter_open."""
        out = ffi.new("lld_adapter **")
        check(lib.lld_adapter_open(model._c, path_argument(path), out))
        self._open(out[0], lib.lld_adapter_close, model)
        info = ffi.new("lld_adapter_info *")
        lib.lld_adapter_get_info(self._c, info)
        self.info = AdapterInfo(**{name: getattr(info, name) for name in AdapterInfo.__slots__})
