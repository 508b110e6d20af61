"""Puts what the services under test really have in place of some of what is generated: a random id is nobody's."""

import json
import os
import zlib

import schemathesis
from schemathesis.engine import observations

known = json.loads(os.environ["FUZZ_KNOWN"])
authorization = os.environ.get("FUZZ_AUTHORIZATION")


def is_chosen(value):
    """The same half of all values in every run."""
    return zlib.crc32(repr(value).encode()) % 2 == 0


same_origin_path = observations._same_origin_path


def same_origin_path_or_none(value, origin):
    """What identity tells back need be no URL, whatever it begins with: Schemathesis 4.32 ends with a ValueError of one."""
    try:
        return same_origin_path(value, origin)
    except ValueError:
        return None


observations._same_origin_path = same_origin_path_or_none


@schemathesis.hook
def before_call(context, case, kwargs):
    if authorization is not None:
        case.headers = {**(case.headers or {}), "Authorization": authorization}
    # A path is /v1/KIND/{id}..., or /scim/v2/providers/{providerId}/KIND/{id}.
    segments = case.operation.path.split("/")
    for kind, segment in zip(segments, segments[1:]):
        name = segment.strip("{}")
        if not segment.startswith("{") or kind not in known["ids"] or name not in (case.path_parameters or {}):
            continue
        given = case.path_parameters[name]
        # Whoever ends its own access is refused from then on, and nothing behind that is seen any more; what a directory
        # deletes is found by nothing else.
        ends_itself = case.method != "GET" and given in known["own"]
        deletes = case.method == "DELETE" and segments[1] == "scim" and name == "id"
        if ends_itself or (is_chosen(given) and not deletes):
            case.path_parameters[name] = known["ids"][kind]
    # It would wait for the bound of a tenant, which may be an hour; the answer is that of the same call without.
    if case.query and case.query.get("wait") in ("effective", ["effective"]):
        del case.query["wait"]
    if isinstance(case.body, dict):
        for name, value in known["credentials"].items():
            if name in case.body and is_chosen(case.body[name]):
                case.body[name] = value
        members = case.body.get("members")
        for member in members if isinstance(members, list) else []:
            if isinstance(member, dict) and is_chosen(member.get("value")):
                member["value"] = known["ids"]["Users"]


@schemathesis.serializer("application/secevent+jwt")
def token(context, value):
    """A body that is text, also where what was generated is none."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "surrogatepass")
