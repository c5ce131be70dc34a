"""What only administrators may do: one table, and the refusals that name who may.

Who calls and who is an administrator is known elsewhere (``caller.py``).
"""

from llamad.door.caller import Caller
from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.record import JobSnapshot
from llamad.users import user_name

_ADMIN = "/llamad.v1.Admin/"
_FOR_EVERYBODY = frozenset({_ADMIN + "ListModels"})
_ACTIONS = {
    _ADMIN + "AddModel": "add a model",
    _ADMIN + "UseModel": "change the model",
    _ADMIN + "UnloadModel": "unload the model",
    _ADMIN + "RemoveModel": "remove a model",
    _ADMIN + "AddPrefix": "add a prefix",
    _ADMIN + "RemovePrefix": "remove a prefix",
}


def check_method(method: str, caller: Caller, admin_group: str) -> None:
    """Refuse a method, by its full name, that is not for this caller. Raises NOT_ADMIN.

    A method of Admin that no table here names is for administrators.
    """
    if caller.is_admin or not method.startswith(_ADMIN) or method in _FOR_EVERYBODY:
        return
    who = f"root and members of group {admin_group}" if admin_group else "root"
    action = _ACTIONS.get(method, "call " + method.removeprefix(_ADMIN))
    raise LlamadError(
        ErrorKind.PERMISSION,
        "NOT_ADMIN",
        f"only {who} may {action}, and user {user_name(caller.uid)} is not one of them",
    )


def check_cancel(job: JobSnapshot, caller: Caller) -> None:
    """Refuse to cancel a job of somebody else. Raises NOT_OWNER."""
    check_owner(job, caller, "cancel it")


def check_owner(job: JobSnapshot, caller: Caller, action: str) -> None:
    """Refuse an action on a job of somebody else. Raises NOT_OWNER.

    A job that a gateway submitted belongs to the user it named; the gateway keeps its rights on it.
    """
    if caller.is_admin or caller.uid == job.owner_uid or user_name(caller.uid) == job.owner:
        return
    owner = f"user {job.owner}" if job.owner else "somebody else"
    raise LlamadError(
        ErrorKind.PERMISSION,
        "NOT_OWNER",
        f"job {job.id} belongs to {owner}; only they and administrators may {action}",
    )


def check_on_behalf_of(name: str, caller: Caller, gateway_group: str) -> None:
    """Refuse to ask for another user; an empty name is nobody. Raises NOT_GATEWAY."""
    if not name or caller.is_admin or caller.is_gateway:
        return
    who = f"members of group {gateway_group} and administrators"
    raise LlamadError(
        ErrorKind.PERMISSION,
        "NOT_GATEWAY",
        f"on_behalf_of: only {who if gateway_group else 'administrators'} may ask for another user,"
        f" and user {user_name(caller.uid)} is not one of them",
    )
