"""The weights of a Hugging Face folder: in one file or in several with an index.

Owns which file of the folder is the model's: safetensors before what torch.save wrote, and the
name that transformers gives before any other.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from llamad_tools.checkpoints.json_file import read_json
from llamad_tools.checkpoints.pth_file import PthFile
from llamad_tools.checkpoints.safetensors_file import open_safetensors
from llamad_tools.checkpoints.source import SourceTensor, corrupt

Tensors = dict[str, SourceTensor]
Wanted = Callable[[str], bool]
Opener = Callable[[Path, ExitStack, Wanted], Tensors]


def open_weights(folder: Path, files: ExitStack, wanted: Wanted) -> Tensors:
    """Return those tensors of a folder whose names are wanted; ``files`` gets what must be closed.

    Raises LlamadError for a file that is missing or broken, or an index that does not match.
    """
    for name, open_file in _FORMATS:
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _open_sharded(index, open_file, files, wanted)
        if (folder / name).is_file():
            return open_file(folder / name, files, wanted)
        paths = sorted(folder.glob(f"*{Path(name).suffix}"))
        if len(paths) == 1:
            return open_file(paths[0], files, wanted)
        if paths:
            raise corrupt(
                folder, f"has {len(paths)} {Path(name).suffix} files, but no {index.name}"
            )
    raise corrupt(folder, "has no .safetensors file")


def open_pytorch(path: Path, files: ExitStack, wanted: Wanted) -> Tensors:
    """Do as ``open_safetensors`` with a file that torch.save wrote."""
    file = PthFile(path)
    files.callback(file.close)
    return {name: file.tensor(name) for name in file.names() if wanted(name)}


_FORMATS: tuple[tuple[str, Opener], ...] = (
    ("model.safetensors", open_safetensors),
    ("pytorch_model.bin", open_pytorch),
)


def _open_sharded(index: Path, open_file: Opener, files: ExitStack, wanted: Wanted) -> Tensors:
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
        raise corrupt(index, "has no weight_map of file names")
    result: Tensors = {}
    for name in sorted(set(where.values())):
        path = index.parent / name
        if Path(name).name != name:
            raise corrupt(index, f"names a file in another folder: {name}")
        if not path.is_file():
            raise corrupt(index, f"shard {name} is missing")
        for tensor_name, tensor in open_file(path, files, wanted).items():
            if where.get(tensor_name) != name:
                raise corrupt(path, f"holds {tensor_name}, which {index.name} does not place there")
            result[tensor_name] = tensor
    if missing := set(filter(wanted, where)) - result.keys():
        raise corrupt(index.parent / where[min(missing)], f"tensor {min(missing)} is missing")
    return result
