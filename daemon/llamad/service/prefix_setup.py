"""Puts together what keeps the prefixes of a loaded model: its store, its exchange, its pins."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from llamad.config import Config
from llamad.engine.bindings import engine_version
from llamad.engine.worker import EngineWorker
from llamad.schedule.loop import Scheduler
from llamad.schedule.prompt import system_tokens
from llamad.service.block_exchange import BlockExchange
from llamad.service.loaded_model import LoadedModel
from llamad.service.prefixes import Prefixes
from llamad.service.settings import settings_of
from llamad.service.state_directory import StateDirectory
from llamad.store.block_file import Identity
from llamad.store.prefix_store import PrefixStore

FOLDER = "prefixes"  # in the state directory


def prefixes_of(
    model: LoadedModel,
    scheduler: Scheduler,
    worker: EngineWorker,
    directory: StateDirectory,
    config: Config,
) -> Prefixes:
    """Return what keeps the prefixes of a model, while it serves."""
    info = model.engine_info
    rope = "long" if model.engine_info.long_rope else ""
    store = None
    state_bytes = model.info.state_bytes if model.n_states else 0
    assert not (state_bytes and info.kv_local_block_bytes), "a file has room for one of them"
    tail_bytes = state_bytes or info.kv_local_block_bytes
    if directory.usable:
        store = PrefixStore(
            directory.path / FOLDER,
            Identity(
                model.digest,
                model.kv_type,
                engine_version(),
                info.kv_block_bytes,
                rope,
                tail_bytes,
            ),
            max_bytes=config.prefix_cache.max_bytes,
            bytes_per_day=config.prefix_cache.write_bytes_per_day,
        )
    block_bytes = info.kv_block_bytes + tail_bytes
    exchange = BlockExchange(scheduler, worker, model.engine, store, block_bytes=block_bytes)
    return Prefixes(scheduler, exchange, _configured(model, config))


def _configured(model: LoadedModel, config: Config) -> Mapping[str, Callable[[], Sequence[int]]]:
    return {name: partial(_tokens, model, config, said) for name, said in config.prefixes.items()}


def _tokens(model: LoadedModel, config: Config, said: Mapping[str, str]) -> Sequence[int]:
    """Return the tokens of a section [prefixes.NAME]. Raises OSError of its file."""
    if "prompt" in said:
        return model.tokenizer.encode(said["prompt"])
    text = said["system"] if "system" in said else Path(said["file"]).read_text(encoding="utf-8")
    arguments = settings_of(config, model.name, model.own_sampling).template_arguments
    return system_tokens(model, [{"role": "system", "content": text}], arguments)
