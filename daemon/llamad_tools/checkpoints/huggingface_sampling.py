"""What generation_config.json recommends for drawing tokens, as keys of a GGUF file.

The keys are those that gguf-py and llama.cpp know (general.sampling.*). A file that says
"do_sample": false means greedy decoding and no number of its own, so nothing is taken from it.
"""

from pathlib import Path

from llamad.sampling.parameters import PARAMETERS
from llamad_tools.checkpoints.added_tokens import read_optional
from llamad_tools.checkpoints.source import corrupt

_FILE = "generation_config.json"

# transformers' name -> ours, GGUF's key
_KEYS = {
    "temperature": ("temperature", "general.sampling.temp"),
    "top_k": ("top_k", "general.sampling.top_k"),
    "top_p": ("top_p", "general.sampling.top_p"),
    "min_p": ("min_p", "general.sampling.min_p"),
    "repetition_penalty": ("repeat_penalty", "general.sampling.penalty_repeat"),
}


def read_sampling(folder: Path) -> dict[str, int | float]:
    """Return the entries for a GGUF file; none where nothing is recommended.

    Raises LlamadError that names the file, the key and what is allowed.
    """
    values = read_optional(folder / _FILE)
    if values.get("do_sample") is False:
        return {}
    entries: dict[str, int | float] = {}
    for name, (parameter, key) in _KEYS.items():
        value = values.get(name)
        if value is None:
            continue
        try:
            entries[key] = PARAMETERS[parameter].check(value)
        except ValueError as error:
            raise corrupt(folder / _FILE, f"{name} is {str(value)[:40]!a}, {error}") from None
    return entries
