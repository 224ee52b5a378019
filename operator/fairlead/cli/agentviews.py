"""What `agents` shows: rows and lines from Agents, Leases, pods and what the gateway knows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from fairlead.cli.kinds import condition
from fairlead.cli.printing import age, parse_time, shorten
from fairlead.core import names
from fairlead.core.actions import Obj, meta, spec_of, status_of
from fairlead.core.agent import pod_trouble

_WHY: Final = 70
_MESSAGE: Final = 200
_UNSEEN: Final = "the operator has not looked at it; does it run?"
_UNKNOWN: Final = "n/a"
_NONE: Final = "-"
HEADERS: Final = ("NAME", "READY", "PODS", "QUEUE", "MODEL", "SKILLS", "WHY NOT READY")
WIDE_HEADERS: Final = (*HEADERS[:-1], "CAPABILITIES", "VERSION", "DRAINING", "AGE", HEADERS[-1])
_Lease = TypeVar("_Lease", bound=Obj)
POD_HEADERS: Final = ("POD", "STATE", "TASKS", "HEARTBEAT", "VERSION", "CAPABILITIES")


@dataclass(frozen=True, slots=True)
class Shown:
    """Everything that is known of one Agent."""

    agent: Obj
    leases: Sequence[Obj]
    pods: Sequence[Obj] = ()
    events: Sequence[Obj] = ()
    pool: Mapping[str, Any] | None = None
    """What the gateway says; None: it could not be asked."""
    unknown: Sequence[str] = field(default_factory=tuple)
    """What could not be found out, and why."""


def leases_of(agent: Obj, leases: Iterable[_Lease]) -> list[_Lease]:
    """Return the Leases of an Agent's pods by name."""
    where, label = meta(agent)["namespace"], names.label_value(meta(agent)["name"])
    mine = [one for one in leases if (meta(one)["namespace"], _label(one, names.AGENT_LABEL)) == (where, label)]
    return sorted(mine, key=lambda one: str(meta(one)["name"]))


def drains(lease: Obj) -> bool:
    """Tell whether somebody asked on the Lease that its pod takes no more work."""
    return _annotation(lease, names.DRAIN_ANNOTATION) == "true"


def list_row(agent: Obj, leases: Sequence[Obj], *, wide: bool, now: datetime) -> list[str]:
    """Return the row of an Agent. *leases* are its own."""
    spec, status = spec_of(agent), status_of(agent)
    ready = condition(agent, "Ready")
    why = "" if ready.get("status") == "True" else f"{ready['reason']}: {ready['message']}" if ready else _UNSEEN
    row = [
        meta(agent)["name"],
        ready.get("status") or "Unknown",
        status.get("pods") or _NONE,
        _number(status.get("queue")),
        spec.get("model") or _NONE,
        skills(agent, leases) or _NONE,
    ]
    if wide:
        versions = sorted({_annotation(one, names.VERSION_ANNOTATION) for one in leases} - {""})
        born = parse_time(meta(agent).get("creationTimestamp"))
        row += [
            ",".join(_capabilities(leases)) or _NONE,
            ",".join(versions) or _NONE,
            str(sum(map(drains, leases))),
            age(now - born) if born else "",
        ]
    return [*row, why if wide else shorten(why, _WHY)]


def skills(agent: Obj, leases: Sequence[Obj]) -> str:
    """Return what the agent says that it can do; of one that runs elsewhere, what its card says."""
    own = [str(skill["name"]) for skill in spec_of(agent).get("skills") or ()]
    return ",".join(own or (_capabilities(leases) if spec_of(agent).get("external") else ()))


def describe_lines(shown: Shown, now: datetime) -> list[tuple[str, str]]:
    """Return what heads the description, as names and values."""
    agent, spec, status = shown.agent, spec_of(shown.agent), status_of(shown.agent)
    ready = condition(agent, "Ready")
    lines = [
        ("Name", meta(agent)["name"]),
        ("Namespace", meta(agent)["namespace"]),
        ("Description", spec.get("description") or ""),
        ("Ready", f"{ready['status']} ({ready['reason']})" if ready else _UNSEEN),
        ("Model", spec.get("model") or ""),
        ("Tools", ",".join(spec.get("tools") or ())),
        ("Skills", skills(agent, shown.leases)),
        *([("Address", spec["external"]["url"])] if spec.get("external") else _pool_lines(spec, status)),
        ("Queue", _queue(shown)),
    ]
    born = parse_time(meta(agent).get("creationTimestamp"))
    return [*((name, value) for name, value in lines if value), ("Age", age(now - born) if born else "")]


def _pool_lines(spec: Mapping[str, Any], status: Mapping[str, Any]) -> list[tuple[str, str]]:
    scale = spec.get("scale") or {}
    least = scale.get("min", 1)
    size = f"{least} to {scale['max']}" if scale.get("max") not in (None, least) else str(least)
    each = f"{spec.get('concurrency', 4)} tasks each"
    lease = f"lost after {spec.get('leaseDurationSeconds', 15)} s of silence"
    return [("Pods", f"{status.get('pods') or _UNKNOWN} ready; wanted {size}, {each}, {lease}")]


def _queue(shown: Shown) -> str:
    if shown.pool is None:
        return f"{_number(status_of(shown.agent).get('queue'))} waiting"
    return f"{shown.pool['queued']} waiting, {shown.pool['claimed']} at work"


def condition_rows(agent: Obj, now: datetime) -> list[list[str]]:
    """Return the conditions; their messages say what to do."""
    rows = []
    for one in status_of(agent).get("conditions") or ():
        since = parse_time(one.get("lastTransitionTime"))
        rows.append([one["type"], one["status"], one["reason"], age(now - since) if since else "", one["message"]])
    return rows


def pod_rows(shown: Shown, now: datetime) -> list[list[str]]:
    """Return a row for each pod, those that only have a Lease among them."""
    pods = {str(meta(pod)["name"]): pod for pod in shown.pods}
    leases = {str(meta(lease)["name"]): lease for lease in shown.leases}
    known = {str(one["pod"]): one for one in (shown.pool or {}).get("pods") or ()}
    return [
        _pod_row(name, pods.get(name), leases.get(name), known.get(name), asked=shown.pool is not None, now=now)
        for name in sorted(pods.keys() | leases.keys())
    ]


def _pod_row(
    name: str, pod: Obj | None, lease: Obj | None, session: Mapping[str, Any] | None, *, asked: bool, now: datetime
) -> list[str]:
    beat = heartbeat(lease, now)
    capacity = _annotation(lease, names.CAPACITY_ANNOTATION) or (session or {}).get("concurrency")
    at_work = len(session["tasks"]) if session is not None else 0
    return [
        name,
        pod_state(pod, lease, now=now),
        f"{at_work if asked else '?'}/{capacity}" if lease is not None and capacity else _NONE,
        _NONE if beat is None else f"{age(beat)} ago",
        _version(lease, session) or _NONE,
        ",".join(_capabilities([lease] if lease else [])) or _NONE,
    ]


def pod_state(pod: Obj | None, lease: Obj | None, *, now: datetime) -> str:
    """Return a word for where a pod is: Registered, Draining, Silent, or what keeps it from registering."""
    if pod is not None and meta(pod).get("deletionTimestamp"):
        return "Terminating"
    holder = spec_of(lease or {}).get("holderIdentity")
    if lease is not None and holder and (pod is None or holder == meta(pod)["uid"]):
        beat, patience = heartbeat(lease, now), spec_of(lease).get("leaseDurationSeconds") or 15
        if beat is not None and beat > timedelta(seconds=patience):
            return "Silent"
        return "Draining" if drains(lease) else "Registered"
    trouble = pod_trouble(pod) if pod is not None else None
    if trouble is not None:
        return str(trouble[0])
    return "NotRegistered" if pod is None or status_of(pod).get("phase") == "Running" else "Starting"


def heartbeat(lease: Obj | None, now: datetime) -> timedelta | None:
    """Return how long ago a Lease was renewed, by this machine's clock and the gateway's: for people only."""
    renewed = parse_time(spec_of(lease or {}).get("renewTime"))
    return None if renewed is None else max(now - renewed, timedelta())


def task_rows(shown: Shown) -> list[list[str]]:
    """Return what the pods work on."""
    return [
        [pod["pod"], task["run"] or task["runUid"], task["node"] or _NONE, task["kind"], str(task["attempt"])]
        for pod in (shown.pool or {}).get("pods") or ()
        for task in pod["tasks"]
    ]


def event_rows(events: Iterable[Obj], now: datetime, *, limit: int) -> list[list[str]]:
    """Return the latest events, oldest first."""
    told = [tell(event) for event in sorted(events, key=event_time)[-limit:]]
    return [
        [
            age(now - at) if (at := parse_time(one["time"])) else "",
            *(one["type"], one["reason"], one["object"], shorten(one["message"], _MESSAGE)),
        ]
        for one in told
    ]


def tell(event: Obj) -> dict[str, str]:
    """Return what an event says: when, of what kind, why, about what."""
    about = event.get("involvedObject") or {}
    words = {key: str(event.get(key) or "") for key in ("type", "reason", "message")}
    who = f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"
    return {"time": event_time(event), "object": who, **words}


def event_time(event: Obj) -> str:
    """Return when an event was last seen; such times can be compared as text."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or meta(event).get("creationTimestamp") or "")


def as_document(shown: Shown, now: datetime) -> dict[str, Any]:
    """Return the description as data."""
    rows = {row[0]: row[1] for row in pod_rows(shown, now)}
    known = {str(one["pod"]): one for one in (shown.pool or {}).get("pods") or ()}
    leases = {str(meta(lease)["name"]): lease for lease in shown.leases}
    pods = [
        {
            "name": name,
            "state": state,
            "draining": drains(leases[name]) if name in leases else False,
            "renewTime": spec_of(leases[name]).get("renewTime") if name in leases else None,
            "version": _version(leases.get(name), known.get(name)),
            "capabilities": _capabilities([leases[name]] if name in leases else []),
            "tasks": known.get(name, {}).get("tasks", []) if shown.pool is not None else None,
        }
        for name, state in rows.items()
    ]
    queue = {key: shown.pool[key] for key in ("queued", "claimed")} if shown.pool is not None else None
    return {
        "agent": shown.agent,
        "queue": queue,
        "pods": pods,
        "events": [tell(event) for event in sorted(shown.events, key=event_time)],
    }


def _capabilities(leases: Iterable[Obj]) -> list[str]:
    found = {part for one in leases for part in _annotation(one, names.CAPABILITIES_ANNOTATION).split(",")}
    return sorted(found - {""})


def _annotation(obj: Obj | None, name: str) -> str:
    return str((meta(obj).get("annotations") or {}).get(name) or "") if obj else ""


def _version(lease: Obj | None, session: Mapping[str, Any] | None) -> str:
    return _annotation(lease, names.VERSION_ANNOTATION) or str((session or {}).get("version") or "")


def _label(obj: Obj, name: str) -> str:
    return str((meta(obj).get("labels") or {}).get(name) or "")


def _number(value: Any) -> str:
    return _NONE if value is None else str(value)
