"""A model for people, as GetModel answers, and the rules of requests that its settings make."""

import json
from dataclasses import replace

from llamad.rpc.from_proto import Rules
from llamad.service.model_details import FileDetails
from llamad.service.settings import ModelSettings, Source
from llamad_api.v1 import llamad_pb2 as pb

_SOURCES = {
    Source.MODEL_SECTION: pb.Setting.SOURCE_MODEL_SECTION,
    Source.MODEL_FILE: pb.Setting.SOURCE_MODEL_FILE,
    Source.RECOMMENDED: pb.Setting.SOURCE_RECOMMENDED,
    Source.CONFIGURATION: pb.Setting.SOURCE_CONFIGURATION,
    Source.BUILT_IN: pb.Setting.SOURCE_BUILT_IN,
}


def rules_of(rules: Rules, settings: ModelSettings) -> Rules:
    """Return the rules with a model's settings for what requests leave out."""
    return replace(
        rules,
        sampling=settings.sampling,
        loop_guard=settings.value("loop_guard"),
        system=settings.value("system") or None,
        template_arguments=settings.template_arguments,
    )


def model_response(
    details: FileDetails, settings: ModelSettings, *, n_ctx: int | None
) -> pb.GetModelResponse:
    """Return a model for people; n_ctx: tokens of the loaded one's context, None for others."""
    return pb.GetModelResponse(
        model=pb.ModelDetails(
            name=details.file.name,
            path=str(details.file.path),
            file_bytes=details.file.file_bytes,
            loaded=n_ctx is not None,
            title=details.title,
            architecture=details.architecture,
            licence=details.licence,
            parameters=details.parameters,
            quantization=details.quantization,
            n_ctx_train=details.n_ctx_train,
            n_ctx=n_ctx,
            has_chat_template=bool(details.chat_template),
            chat_template=details.chat_template,
            settings=(
                pb.Setting(
                    name=setting.name,
                    value=json.dumps(setting.value, ensure_ascii=False),
                    source=_SOURCES[setting.source],
                )
                for setting in settings.settings
            ),
            metadata=(
                pb.MetadataEntry(key=key, value=value, length=length)
                for key, value, length in details.metadata
            ),
            digest=details.digest,
            modified_at=details.modified_at,
            capabilities=details.capabilities,
        )
    )
