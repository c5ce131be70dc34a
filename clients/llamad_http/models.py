"""The models and adapters of the service by the names that requests have for them.

Owns what a name means: a model, an adapter, an alias of the configuration, or whatever is loaded.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from llamad_client import AsyncClient, ClientError, Status
from llamad_client.request import EmbedOptions, Options, ScoreOptions
from llamad_http.adapters import Adapter, LoraScale, chosen, loaded_adapters, not_loaded
from llamad_http.administration import Administration
from llamad_http.authorization import Caller
from llamad_http.completion import ModelEntry
from llamad_http.config import Config
from llamad_http.errors import HttpError, from_client_error
from llamad_http.exchange import Exchange
from llamad_http.turns import Share


@dataclass(frozen=True, slots=True)
class Target:
    """What a request goes through. shown: the name that its answer has, the adapter's if asked.

    share: what keeps the model; whose request runs may release it.
    """

    model: str
    adapter: Adapter | None
    shown: str
    share: Share

    def fill(self, options: Options | EmbedOptions | ScoreOptions) -> None:
        """Name the model and the adapter in the options of a call."""
        if self.model:
            options["model"] = self.model
        if self.adapter is not None:
            options["adapter"] = self.adapter.name
            options["adapter_scale"] = self.adapter.scale


class Models:
    """The models of the service, as requests name them."""

    def __init__(self, client: AsyncClient, config: Config, administration: Administration) -> None:
        self.usual_adapter: Adapter | None = None  # of requests that say nothing of adapters
        self._client = client
        self._config = config
        self._administration = administration

    async def status(self) -> Status:
        """Return what the service is doing. Raises HttpError."""
        try:
            return await self._client.status()
        except ClientError as error:
            raise from_client_error(error) from None

    async def entries(self) -> list[ModelEntry]:
        """Return every model, by name. Raises HttpError."""
        try:
            models = await self._client.models()
        except ClientError as error:
            raise from_client_error(error) from None
        entries = [
            ModelEntry(model.name, model.loaded, model.file_bytes, is_adapter=model.is_adapter)
            for model in models
        ]
        return sorted(entries, key=lambda entry: entry.name)

    def true_name(self, name: str) -> str:
        """Return what the configuration calls a model, of which a request has another name."""
        return self._config.aliases.get(name, name)

    async def find(self, wanted: str) -> str | None:
        """Return the model that a request means by a name, None for none. Raises HttpError."""
        entry = await self.entry(wanted)
        return None if entry is None else entry.name

    async def entry(self, wanted: str) -> ModelEntry | None:
        """Return the model, or adapter, that a name means, None for none. Raises HttpError."""
        name = self.true_name(wanted)
        return next((m for m in await self.entries() if same_name(m.name, name)), None)

    @asynccontextmanager
    async def through(
        self,
        exchange: Exchange,
        wanted: str,
        *,
        any_name: bool,
        lora: Sequence[LoraScale] | None = None,
    ) -> AsyncIterator[Target]:
        """Yield what answers for a name of a request, which may be an adapter's.

        A model that is not loaded is loaded where the caller may have that. No request of the
        gateway takes it away before the block ends, or the target's share is released.

        any_name: a name of no model is the loaded model's, because many clients name a model of a
        cloud where nobody chose one. lora: what the request says of adapters; where it says nothing
        and names none, the usual one is taken. Raises HttpError, and ClientGoneError.
        """
        finding = self._target(wanted, exchange.caller, any_name=any_name, lora=lora)
        target = await exchange.unless_gone(finding)
        try:
            yield target
        finally:
            target.share.release()

    async def _target(
        self, wanted: str, caller: Caller, *, any_name: bool, lora: Sequence[LoraScale] | None
    ) -> Target:
        share = await self._administration.turns.share()
        try:
            return await self._target_of(wanted, caller, share, any_name=any_name, lora=lora)
        except BaseException:
            share.release()
            raise

    async def _target_of(
        self,
        wanted: str,
        caller: Caller,
        share: Share,
        *,
        any_name: bool,
        lora: Sequence[LoraScale] | None,
    ) -> Target:
        status = await self.status()
        name = self.true_name(wanted)
        found = next((one for one in status.adapters if same_name(one.name, name)), None)
        if found is not None and found.fault:
            raise not_loaded(found.name, found.fault)
        model = await self._model("" if found else wanted, caller, status, share, any_name=any_name)
        if status.model is None or status.model.name != model:  # it has been loaded
            status = await self.status()
        if lora is not None:
            shown = model if found is None else found.name
            return Target(model, chosen(lora, status), shown, share)
        if found is not None:
            return Target(model, Adapter(found.name), found.name, share)
        usual = self.usual_adapter
        if usual is not None and usual.name not in loaded_adapters(status):
            usual = None
        return Target(model, usual, model, share)

    async def _model(
        self, wanted: str, caller: Caller, status: Status, share: Share, *, any_name: bool
    ) -> str:
        name = self.true_name(wanted)
        loaded = status.model.name if status.model is not None else ""
        if not name or (loaded and same_name(name, loaded)):
            return loaded
        entry = await self.entry(wanted)
        if entry is not None and entry.is_adapter:
            raise not_loaded(entry.name, "")
        found = None if entry is None else entry.name
        if found is not None and self._administration.may_use(caller):
            share.release()
            await self._administration.use(found, share)
            return found
        if found is None and any_name and self._config.any_model_name:
            return loaded
        if found is None:
            message = f"model {wanted[:128]!r} not found"
        else:
            message = f"model {found!r} is not loaded; {loaded!r} is, llamactl use changes it"
        raise HttpError(404, "MODEL_NOT_FOUND", message, field="model")


def same_name(one: str, other: str) -> bool:
    """Whether two names are one model's: Ollama's ``qwen2.5:1.5b`` is our ``qwen2.5-1.5b``."""
    return plain_name(one) == plain_name(other)


def plain_name(name: str) -> str:
    """Return our form of a name that Ollama's programs give a model."""
    return name.removesuffix(":latest").replace(":", "-").casefold()
