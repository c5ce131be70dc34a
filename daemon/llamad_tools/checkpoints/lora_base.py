"""The model that an adapter was made for: its family, its numbers, and the shapes of its tensors.

A base is a Hugging Face folder, of which config.json is enough, or a GGUF file of any type. A file
does not say how the folder it came from called and ordered its tensors: its architecture's
families do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llamad.engine.bindings import GgufFile
from llamad.gguf.value import MetadataValue
from llamad_tools.checkpoints.huggingface_config import HuggingFaceConfig
from llamad_tools.checkpoints.huggingface_families import FAMILIES
from llamad_tools.checkpoints.huggingface_family import Config, Family
from llamad_tools.checkpoints.hyperparameters import Shape
from llamad_tools.checkpoints.source import corrupt, unsupported
from llamad_tools.quantize.mixes import hyperparameter

_CONFIG = "config.json"
_KEYS: Mapping[str, str] = {  # of config.json, which families ask for to order rows: GGUF's
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "linear_num_key_heads": "ssm.group_count",
    "linear_num_value_heads": "ssm.time_step_rank",
    "linear_key_head_dim": "ssm.state_size",
    "linear_value_head_dim": "ssm.state_size",
    "linear_conv_kernel_dim": "ssm.conv_kernel",
}
_AS_IT_IS = Family("").arrange
_TOLD_BY_A_FILE = frozenset(  # families that order rows by these keys, or rows of experts alone
    ("gptneox", "internlm2", "qwen35", "qwen2moe", "granitemoe", "lfm2", "lfm2moe", "gpt-oss")
)


@dataclass(frozen=True, slots=True)
class LoraBase:
    """A base. families: of which one has the adapter's names; shapes: of tensors by GGUF's name."""

    path: Path
    name: str
    architecture: str
    families: tuple[Family, ...]
    config: Config
    head_dim: int
    shapes: Mapping[str, Shape]


def open_lora_base(path: Path) -> LoraBase:
    """Read a folder's config.json, or the head of a GGUF file.

    Raises LlamadError that names the file and the key or the tensor.
    """
    if path.is_dir():
        path = path / _CONFIG
    if path.name == _CONFIG:
        return _of_folder(path)
    with GgufFile(path) as file:
        metadata = file.metadata()
        shapes = {tensor.name: tensor.shape[::-1] for tensor in file.tensors()}
    return _of_file(path, metadata, shapes)


def base_files(path: Path) -> list[Path]:
    """Return the files that ``open_lora_base`` reads."""
    return [path / _CONFIG if path.is_dir() else path]


def _of_folder(path: Path) -> LoraBase:
    config = HuggingFaceConfig(path)
    numbers = config.hyperparameters
    return LoraBase(
        path=path,
        name=numbers.name,
        architecture=numbers.architecture,
        families=(config.family,),
        config=config.values,
        head_dim=numbers.head_dim,
        shapes=dict(numbers.shapes()),
    )


def _of_file(
    path: Path, metadata: Mapping[str, MetadataValue], shapes: Mapping[str, Shape]
) -> LoraBase:
    architecture = str(metadata.get("general.architecture", ""))
    if metadata.get("general.type", "model") != "model":
        raise unsupported(path, f"is no model: general.type is {metadata['general.type']!r:.80}")
    families = tuple(f for f in FAMILIES.values() if f.architecture == architecture)
    if not families:
        raise unsupported(path, f"architecture {architecture!r:.80} is of no family that converts")
    if architecture not in _TOLD_BY_A_FILE and any(f.arrange is not _AS_IT_IS for f in families):
        raise unsupported(
            path,
            f"a file of {architecture} does not say how its rows are ordered: give the base's "
            f"folder, of which {_CONFIG} is enough",
        )
    n_heads, dim = (
        hyperparameter(metadata, key, 0) for key in ("attention.head_count", "embedding_length")
    )
    head_dim = hyperparameter(metadata, "attention.key_length", dim // n_heads if n_heads else 0)
    if any(f.interleaves for f in families) and (head_dim < 2 or head_dim % 2):
        raise corrupt(path, f"heads have {head_dim} dimensions, must have pairs")
    name = metadata.get("general.name")
    return LoraBase(
        path=path,
        name=name if isinstance(name, str) else path.stem,
        architecture=architecture,
        families=families,
        config={theirs: hyperparameter(metadata, ours, 1) for theirs, ours in _KEYS.items()},
        head_dim=head_dim,
        shapes=shapes,
    )
