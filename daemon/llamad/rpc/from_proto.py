"""Messages to domain values and back; every check of a request's fields that needs no model.

The ranges of sampling are those of ``sampling/parameters.py``. A field outside its range raises the
INVALID error that names it. What depends on the loaded model (length of a prompt in tokens, token
ids against the vocabulary) is checked where the model is known.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from llamad.door.caller import Caller
from llamad.door.rights import check_on_behalf_of
from llamad.errors import invalid
from llamad.jobs import event, request
from llamad.jobs.record import JobSnapshot, JobState
from llamad.jobs.token_logprob import unpack_logprobs
from llamad.ranges import MAX_TEXT_BYTES, Real
from llamad.rpc import tools_from_proto
from llamad.rpc.format_from_proto import response_format
from llamad.rpc.sampling_from_proto import checked, short_texts, to_sampling
from llamad.sampling.parameters import Sampling
from llamad.template_arguments import parse_arguments
from llamad_api.v1 import llamad_pb2 as pb

MAX_LISTED_TOKENS = 1 << 20
MAX_NAME_BYTES = 256
MAX_LOGPROBS = 20
MAX_ANSWERS = 8
OWNER_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
DEADLINE_SECONDS = Real(0.0, math.inf, open_low=True)
RESUMABLE_SECONDS = Real(0.0, 60.0)
ADAPTER_SCALE = Real(-1000.0, 1000.0)
MAX_KEY_BYTES = 128
PREFIX_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")

_PRIORITIES = {
    pb.PRIORITY_UNSPECIFIED: None,
    pb.PRIORITY_INTERACTIVE: request.Priority.INTERACTIVE,
    pb.PRIORITY_NORMAL: request.Priority.NORMAL,
    pb.PRIORITY_BATCH: request.Priority.BATCH,
}
_PRIORITY_NUMBERS = {
    request.Priority.INTERACTIVE: pb.PRIORITY_INTERACTIVE,
    request.Priority.NORMAL: pb.PRIORITY_NORMAL,
    request.Priority.BATCH: pb.PRIORITY_BATCH,
}
_FINISH_REASONS = {
    event.FinishReason.STOP: pb.FINISH_REASON_STOP,
    event.FinishReason.STOP_STRING: pb.FINISH_REASON_STOP_STRING,
    event.FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    event.FinishReason.CANCELLED: pb.FINISH_REASON_CANCELLED,
    event.FinishReason.LOOP: pb.FINISH_REASON_LOOP,
    event.FinishReason.TOOL_CALLS: pb.FINISH_REASON_TOOL_CALLS,
}
_CONTEXT_FULL = {
    pb.CONTEXT_FULL_UNSPECIFIED: None,
    pb.CONTEXT_FULL_REFUSE: request.ContextFull.REFUSE,
    pb.CONTEXT_FULL_DROP_OLDEST: request.ContextFull.DROP_OLDEST,
}
_JOB_STATES = {
    JobState.QUEUED: pb.JOB_STATE_QUEUED,
    JobState.PREFILL: pb.JOB_STATE_PREFILL,
    JobState.DECODE: pb.JOB_STATE_DECODE,
    JobState.FINISHED: pb.JOB_STATE_FINISHED,
    JobState.CANCELLED: pb.JOB_STATE_CANCELLED,
    JobState.FAILED: pb.JOB_STATE_FAILED,
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What the service's configuration says about requests."""

    sampling: Sampling = field(default_factory=Sampling)  # for absent fields
    max_prompt_bytes: int = MAX_TEXT_BYTES  # of a prompt, or of all messages together
    max_text_bytes: int = MAX_TEXT_BYTES  # of a text to tokenize
    context_full: request.ContextFull = request.ContextFull.DROP_OLDEST  # of a chat
    system: str | None = None  # of a chat that does not begin with a system message
    template_arguments: Mapping[str, Any] = field(default_factory=dict)  # of a chat
    loop_guard: bool = True  # of a request that gives no parameter of sampling
    gateway_group: str = ""  # whose members may ask for others


# ---- requests ------------------------------------------------------------------------------------


def generation_request(
    message: pb.GenerateRequest, rules: Rules, request_id: str, caller: Caller | None = None
) -> request.GenerationRequest:
    """Return the checked request of a Generate call; ``caller`` None is not known."""
    if message.options.template_arguments:
        raise invalid("template_arguments", "are for Chat: a prompt has no template")
    if message.options.HasField("thinking"):
        raise invalid("thinking", "is for Chat: what continues a prompt has no thoughts")
    if message.prompt_tokens:
        _check_prompt_tokens(message, rules)
    else:
        _check_text("prompt", message.prompt, rules.max_prompt_bytes, least_bytes=1)
    return with_options(
        message.options,
        rules,
        caller,
        request.GenerationRequest(
            prompt=None if message.prompt_tokens else message.prompt,
            tokens=tuple(message.prompt_tokens),
            parse_special=message.parse_special,
            request_id=request_id,
        ),
    )


def _check_prompt_tokens(message: pb.GenerateRequest, rules: Rules) -> None:
    """Refuse what is wrong with any vocabulary; a token stands for a byte at least."""
    n_tokens = len(message.prompt_tokens)
    if message.prompt:
        raise invalid("prompt_tokens", "are instead of a prompt: give one of both")
    if message.parse_special:
        raise invalid("parse_special", "is for a prompt: prompt_tokens are no text")
    if n_tokens > rules.max_prompt_bytes:
        raise invalid("prompt_tokens", f"there are {n_tokens}, at most {rules.max_prompt_bytes}")


def chat_request(
    message: pb.ChatRequest, rules: Rules, request_id: str, caller: Caller | None = None
) -> request.GenerationRequest:
    """Return the checked request of a Chat call; ``caller`` None is not known."""
    messages = tools_from_proto.chat_messages(message.messages, rules.max_prompt_bytes)
    tools = tools_from_proto.tools(message.tools, rules.max_prompt_bytes)
    tool_use = tools_from_proto.tool_use(message.tool_choice, tools)
    if message.continue_final_message and tool_use is request.ToolUse.REQUIRED:
        raise invalid("tool_choice", "requires a call, and the last message is to go on")
    if message.context_full not in _CONTEXT_FULL:
        raise invalid("context_full", f"{message.context_full} is none of REFUSE, DROP_OLDEST")
    if rules.system is not None and messages[0].role != "system":
        messages = (request.ChatMessage("system", rules.system), *messages)
    return with_options(
        message.options,
        rules,
        caller,
        request.GenerationRequest(
            messages=messages,
            context_full=_CONTEXT_FULL[message.context_full] or rules.context_full,
            template_arguments=_template_arguments(message.options, rules),
            tools=tools,
            tool_use=tool_use,
            required_tool=message.tool_choice.name,
            allowed_tools=tuple(message.tool_choice.allowed),
            parallel_tool_calls=(
                message.parallel_tool_calls if message.HasField("parallel_tool_calls") else True
            ),
            continue_final_message=message.continue_final_message,
            thinking=tools_from_proto.thinking(message.options),
            request_id=request_id,
        ),
    )


def submitted_request(
    message: pb.SubmitJobRequest, rules: Rules, request_id: str, caller: Caller | None = None
) -> tuple[request.GenerationRequest, str]:
    """Return the checked request of a SubmitJob call, and a digest of what it asks for."""
    _check_text("idempotency_key", message.idempotency_key, MAX_KEY_BYTES)
    match message.WhichOneof("request"):
        case "generate":
            checked = generation_request(message.generate, rules, request_id, caller)
            asked = message.generate.SerializeToString(deterministic=True)
        case "chat":
            checked = chat_request(message.chat, rules, request_id, caller)
            asked = message.chat.SerializeToString(deterministic=True)
        case _:
            raise invalid("request", "is missing: give generate or chat")
    if checked.resumable_seconds:
        raise invalid("resumable_seconds", "is for Generate and Chat: a submitted job always is")
    if checked.n > 1:
        raise invalid("n", "is for Generate and Chat: submit a job for each answer")
    kind = message.WhichOneof("request").encode()
    return checked, hashlib.sha256(kind + b"\0" + asked).hexdigest()


def with_options(
    options: pb.Options,
    rules: Rules,
    caller: Caller | None,
    base: request.GenerationRequest,
) -> request.GenerationRequest:
    """Return a request with what its options say, checked."""
    _check_text("model", options.model, MAX_NAME_BYTES)
    if options.HasField("max_tokens") and options.max_tokens < 1:
        raise invalid("max_tokens", "is 0, must be at least 1")
    if options.priority not in _PRIORITIES:
        raise invalid("priority", f"{options.priority} is no priority")
    if options.on_behalf_of and not OWNER_NAME.fullmatch(options.on_behalf_of):
        shown = _quote(options.on_behalf_of)
        raise invalid("on_behalf_of", f"is {shown}, must be 1 to 64 letters, digits and ._@-")
    if caller is not None:
        check_on_behalf_of(options.on_behalf_of, caller, rules.gateway_group)
    checked("resumable_seconds", RESUMABLE_SECONDS, options.resumable_seconds)
    return replace(
        base,
        model=options.model,
        max_tokens=options.max_tokens if options.HasField("max_tokens") else None,
        stop=short_texts("stop", options.stop),
        sampling=to_sampling(options.sampling, rules.sampling),
        min_tokens=request.NEVER if options.ignore_eos else options.min_tokens,
        response_format=response_format(options),
        n=_answers(options),
        logprobs=_logprobs(options),
        loop_guard=_loop_guard(options, rules),
        priority=_PRIORITIES[options.priority],
        deadline_seconds=_seconds(options, "deadline_seconds"),
        pin=options.pin and check_prefix_name("pin", options.pin),
        time_to_live_seconds=_seconds(options, "time_to_live_seconds"),
        resumable_seconds=options.resumable_seconds,
        owner_uid=None if caller is None else caller.uid,
        on_behalf_of=options.on_behalf_of,
        speculation=options.speculation if options.HasField("speculation") else None,
        adapter=_adapter(options),
    )


def _adapter(options: pb.Options) -> request.AdapterChoice | None:
    """Return the adapter that a request goes through; its digest is the loaded one's."""
    if not options.HasField("adapter"):
        return None
    chosen = options.adapter
    if not chosen.name:
        raise invalid("adapter.name", "is missing")
    _check_text("adapter.name", chosen.name, MAX_NAME_BYTES)
    if options.pin:
        raise invalid("pin", "keeps what the model itself read, not what went through an adapter")
    scale = chosen.scale if chosen.HasField("scale") else 1.0
    return request.AdapterChoice(chosen.name, checked("adapter.scale", ADAPTER_SCALE, scale))


def _logprobs(options: pb.Options) -> int | None:
    """Return how many likeliest tokens are told of beside each one; None: nothing is told."""
    if not options.HasField("logprobs"):
        return None
    if options.logprobs > MAX_LOGPROBS:
        raise invalid("logprobs", f"is {options.logprobs}, must be 0 to {MAX_LOGPROBS}")
    return options.logprobs


def _answers(options: pb.Options) -> int:
    """Return how many answers are wanted."""
    if not options.HasField("n"):
        return 1
    if not 1 <= options.n <= MAX_ANSWERS:
        raise invalid("n", f"is {options.n}, must be 1 to {MAX_ANSWERS}")
    if options.n > 1 and options.resumable_seconds:
        raise invalid("n", "several answers cannot be resumed: no resumable_seconds")
    return options.n


def _seconds(options: pb.Options, name: str) -> float | None:
    """Return a bound in seconds; None for none."""
    if not options.HasField(name):
        return None
    seconds: float = checked(name, DEADLINE_SECONDS, getattr(options, name))
    return seconds


def _template_arguments(options: pb.Options, rules: Rules) -> Mapping[str, Any]:
    try:
        given = parse_arguments(options.template_arguments)
    except ValueError as error:
        raise invalid("template_arguments", str(error)) from None
    return {**rules.template_arguments, **given}


def _loop_guard(options: pb.Options, rules: Rules) -> bool:
    """Return whether a loop ends the completion: a request with a sampling of its own has to ask.

    So what a request wants exactly, it gets to the end.
    """
    if options.HasField("loop_guard"):
        return options.loop_guard
    own = any(entry.name != "seed" for entry, _ in options.sampling.ListFields())
    return rules.loop_guard and not own


def tokenize_text(message: pb.TokenizeRequest, rules: Rules) -> str:
    """Return the checked text of a Tokenize call."""
    _check_text("text", message.text, rules.max_text_bytes)
    return message.text


def detokenize_tokens(message: pb.DetokenizeRequest) -> list[int]:
    """Return the token ids of a Detokenize call; the vocabulary's size is checked elsewhere."""
    if len(message.tokens) > MAX_LISTED_TOKENS:
        raise invalid("tokens", f"there are {len(message.tokens)}, at most {MAX_LISTED_TOKENS}")
    return list(message.tokens)


JobMessage = pb.GetJobRequest | pb.CancelJobRequest | pb.WatchJobRequest | pb.ResumeJobRequest


def job_id(message: JobMessage) -> str:
    """Return the id of the job that a call is about."""
    if not message.id:
        raise invalid("id", "is missing")
    _check_text("id", message.id, MAX_NAME_BYTES)
    return message.id


def _check_text(name: str, text: str, most_bytes: int, least_bytes: int = 0) -> None:
    size = len(text.encode())
    if size > most_bytes:
        raise invalid(name, f"has {size} bytes, at most {most_bytes}")
    if size < least_bytes:
        raise invalid(name, "is empty")


def check_prefix_name(field_name: str, name: str) -> str:
    """Return the name of a prefix. Raises the error that names the field."""
    if PREFIX_NAME.fullmatch(name) is None:
        raise invalid(field_name, f"is {_quote(name)}, must be 1 to 64 of letters, digits and ._-")
    return name


def _quote(text: str) -> str:
    shown = text if len(text) <= 32 else text[:32] + "…"
    return repr(shown)


# ---- jobs and events -----------------------------------------------------------------------------

Answering = TypeVar("Answering", pb.GenerateResponse, pb.ChatResponse)
Response = TypeVar("Response", pb.GenerateResponse, pb.ChatResponse, pb.ResumeJobResponse)


def numbered_response(item: event.Event, index: int, kind: type[Answering]) -> Answering:
    """Return an event of the answer of this number."""
    message = response(item, kind)
    message.index = index
    return message


def response(item: event.Event, kind: type[Response]) -> Response:
    """Return an event of a job as the message of a stream. Only a Chat has thoughts and calls."""
    match item:
        case event.Delta(call=event.ToolCallHead() as head):
            call = tools_from_proto.tool_call_delta(item, head)
            return kind(tool_call=call)  # type: ignore[call-arg]
        case event.Delta(thinking=True):
            # a GenerateResponse has none, and no Generate a thought
            return kind(thinking=pb.ThinkingDelta(text=item.text, tokens=item.tokens))  # type: ignore[call-arg]
        case event.Delta():
            logprobs = token_logprob(item.logprobs) if item.logprobs else None
            return kind(delta=pb.TextDelta(text=item.text, tokens=item.tokens, logprob=logprobs))
        case event.Queued():
            return kind(
                queued=pb.Queued(
                    job_id=item.job_id,
                    queue_position=item.queue_position,
                    prompt_tokens=item.prompt_tokens,
                    dropped_messages=item.dropped_messages,
                    substitute_template=item.substitute_template,
                    wait_seconds=item.wait_seconds,
                )
            )
        case event.PrefillProgress():
            return kind(
                prefill=pb.PrefillProgress(
                    processed_tokens=item.processed_tokens,
                    prompt_tokens=item.prompt_tokens,
                    seconds_left=item.seconds_left,
                )
            )
        case event.Finished():
            return kind(finished=finished(item))
        case event.Embedded():
            raise TypeError("the vector of a text is no part of an answer")


def token_logprob(packed: bytes) -> pb.TokenLogprob:
    """Return how likely a token was, and which were likeliest in its place."""
    messages = [
        pb.TokenLogprob(token=entry.token, piece=entry.piece, logprob=entry.logprob)
        for entry in unpack_logprobs(packed)
    ]
    messages[0].likeliest.extend(messages[1:])
    return messages[0]


def finished(item: event.Finished) -> pb.Finished:
    """Return the last event of a job as its message."""
    times = item.timings
    return pb.Finished(
        reason=_FINISH_REASONS[item.reason],
        usage=pb.Usage(
            prompt_tokens=item.prompt_tokens,
            completion_tokens=item.completion_tokens,
            cached_prompt_tokens=item.cached_prompt_tokens,
            reasoning_tokens=item.reasoning_tokens,
        ),
        timings=pb.Timings(
            queue_seconds=times.queue_seconds,
            prefill_seconds=times.prefill_seconds,
            decode_seconds=times.decode_seconds,
            time_to_first_token_seconds=times.time_to_first_token_seconds,
            time_per_output_token_seconds=times.time_per_output_token_seconds,
            load_seconds=times.load_seconds,
        ),
        seed=item.seed,
        job_id=item.job_id,
        model=item.model,
        stop_string=item.stop_string,
        dropped_messages=item.dropped_messages,
        context_full=item.context_full,
        format_incomplete=item.format_incomplete,
    )


def job(snapshot: JobSnapshot) -> pb.Job:
    """Return a job as ListJobs and WatchJob show it."""
    reason = snapshot.finish_reason
    return pb.Job(
        id=snapshot.id,
        state=_JOB_STATES[snapshot.state],
        priority=_PRIORITY_NUMBERS[snapshot.priority],
        model=snapshot.model,
        prompt_tokens=snapshot.prompt_tokens,
        processed_prompt_tokens=snapshot.processed_prompt_tokens,
        completion_tokens=snapshot.completion_tokens,
        max_tokens=snapshot.max_tokens,
        age_seconds=snapshot.age_seconds,
        running_seconds=snapshot.running_seconds,
        finish_reason=(pb.FINISH_REASON_UNSPECIFIED if reason is None else _FINISH_REASONS[reason]),
        error=snapshot.error,
        error_reason=snapshot.error_reason,
        owner_uid=snapshot.owner_uid,
        on_behalf_of=snapshot.on_behalf_of,
        queue_position=snapshot.queue_position,
        wait_seconds=snapshot.wait_seconds,
        durable=snapshot.durable,
        idempotency_key=snapshot.idempotency_key,
        submitted_at=snapshot.submitted_unix,
    )
