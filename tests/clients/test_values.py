"""The client's values against the messages, and its two clients against each other."""

import dataclasses
import inspect
import typing
from typing import Any

import pytest

from llamad_api.v1 import admin_pb2
from llamad_api.v1 import llamad_pb2 as pb
from llamad_client import AsyncClient, AsyncCompletion, Client, Completion, Job, Result, Status
from llamad_client.values import VALUES, event_of, value_of


@pytest.mark.parametrize("message", VALUES, ids=lambda message: message.DESCRIPTOR.name)
def test_a_value_has_the_fields_of_its_message(message: Any) -> None:
    value = VALUES[message]
    names = [field.name for field in dataclasses.fields(value)]
    assert names == [field.name for field in message.DESCRIPTOR.fields]
    types = typing.get_type_hints(value)
    empty = message()
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and dataclasses.is_dataclass(types[field.name]):
            getattr(empty, field.name).SetInParent()  # the service always sends it
    for name, held in dataclasses.asdict(value_of(value, empty)).items():
        optional = type(None) in typing.get_args(types[name])
        assert (held is None) <= optional, name


def test_a_result_has_the_fields_of_finished_and_usage() -> None:
    names = {field.name for field in dataclasses.fields(Result)}
    finished = {field.name for field in pb.Finished.DESCRIPTOR.fields} - {"reason", "usage"}
    usage = {field.name for field in pb.Usage.DESCRIPTOR.fields}
    assert names == finished | usage | {"finish_reason"}
    message = pb.Finished(reason=pb.FINISH_REASON_STOP_STRING, usage=pb.Usage(prompt_tokens=3))
    event = event_of(pb.ChatResponse(finished=message))
    assert isinstance(event, Result)
    assert (event.finish_reason, event.prompt_tokens) == ("stop_string", 3)


def test_enums_are_lower_case_names_and_absent_fields_none() -> None:
    job = value_of(Job, pb.Job(state=pb.JOB_STATE_PREFILL, priority=pb.PRIORITY_BATCH, owner_uid=0))
    assert (job.state, job.priority, job.owner_uid, job.max_tokens) == ("prefill", "batch", 0, None)
    status = pb.GetStatusResponse(state=pb.GetStatusResponse.STATE_NO_MODEL)
    assert (value_of(Status, status).state, value_of(Status, status).model) == ("no_model", None)
    status.model.name = "tiny"
    model = value_of(Status, status).model
    assert model is not None
    assert model.name == "tiny"


def test_a_state_of_a_newer_service_is_its_number() -> None:
    assert value_of(Job, pb.Job.FromString(b"\x10\x63")).state == "99"


def test_an_event_of_a_newer_service_is_none() -> None:
    assert event_of(pb.GenerateResponse()) is None


@pytest.mark.parametrize(("one", "other"), [(Client, AsyncClient), (Completion, AsyncCompletion)])
def test_both_clients_offer_the_same(one: type, other: type) -> None:
    def surface(kind: type) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in methods
            if not name.startswith("_")
        }

    assert surface(one) == surface(other)


def test_no_call_of_the_service_is_missing() -> None:
    services = (pb.DESCRIPTOR.services_by_name, admin_pb2.DESCRIPTOR.services_by_name)
    calls = {m.name for by_name in services for s in by_name.values() for m in s.methods}
    missing = {name for name in calls if f".{name}" not in inspect.getsource(Client)}
    assert missing == {"WatchJob"}  # llamactl has no command for it yet
