"""The results of a Workflow: per point its state, and its Profile or why it has none.

Everything here comes from outside. A result counts only if it is whole, is a Profile, and says what was asked for; any
other is a failure with a reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError

from scepsy.demand.replay import note_of
from scepsy.documents import DocumentError, Profile, emit
from scepsy.documents.compressed_text import unpack
from scepsy.documents.diagnostics import printable
from scepsy.documents.loading import validate
from scepsy.documents.model import FileMetadata
from scepsy.documents.yaml_source import SourceFile, parse
from scepsy.errors import ScepsyError
from scepsy.profiling.jobs.workflow import REQUEST, Request, parsed_name, point_name, shape_of
from scepsy.profiling.planning.sweep import Shape

State = Literal["waiting", "running", "measured", "unusable", "failed"]
DONE: tuple[State, ...] = ("measured", "unusable")
"""States of a point that has a Profile."""

_MEASURE = "measure"
_FINISHED = ("Succeeded", "Failed", "Error")
_LONGEST_REASON = 1000
_SENTENCE = re.compile(r"(?<=\.) (?=[A-Z0-9])")
_EXIT_CODE = re.compile(r"(main: )?Error \(exit code [0-9]+\)")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}$")


@dataclass(frozen=True)
class Point:
    """One point of a sweep.

    Attributes:
        name: such as `tp2-s10`.
        state: its state.
        reason: why it failed, is unusable, or what it waits for; may be empty.
        profile: its Profile, if it is measured or unusable.
        partial: a packed journal with which another attempt can go on; may be empty.
    """

    name: str
    state: State
    reason: str = ""
    profile: Profile | None = None
    partial: str = ""


@dataclass(frozen=True)
class Run:
    """One Workflow.

    Attributes:
        name: its name.
        base: the name of the first attempt.
        attempt: which one this is.
        request: what was asked for.
        finished: whether it is over.
        points: the points that it was to measure.
    """

    name: str
    base: str
    attempt: int
    request: Request
    finished: bool
    points: tuple[Point, ...]


@dataclass(frozen=True)
class _Asked:
    """What the results of one Workflow are checked against, and its first name.

    Attributes:
        request: its request.
        image_digest: its image's digest, if that is pinned.
        busy: names of its points with busy neighbours.
        base: the first name.
    """

    request: Request
    image_digest: str | None
    busy: frozenset[str]
    base: str


def read_run(workflow: Mapping[str, Any]) -> Run | None:
    """Return the results of a Workflow; None if it is not a profiling job of Scepsy.

    A point that cannot be read has failed; nothing of it is taken over.
    """
    try:
        metadata = _mapping(workflow.get("metadata"))
        named = parsed_name(str(metadata.get("name")))
        request = Request.model_validate(json.loads(str(_mapping(metadata.get("annotations")).get(REQUEST))))
        parameters = _parameters(_mapping(_mapping(workflow.get("spec")).get("arguments")))
        given = [_mapping(point) for point in json.loads(parameters["points"])]
    except (ValueError, ValidationError, KeyError, TypeError, RecursionError):
        return None
    points = [str(point.get("name")) for point in given]
    if named is None or any(shape_of(point) is None for point in points):
        return None
    status = _mapping(workflow.get("status"))
    finished = str(status.get("phase")) in _FINISHED
    nodes, problem = _nodes(status)
    ended = problem or _text(status.get("message")) or f"the Workflow ended as {status.get('phase')} before it ran"
    base, attempt = named
    digest = _DIGEST.search(parameters.get("image", ""))
    busy = frozenset(str(point.get("name")) for point in given if point.get("neighbours") == "busy")
    asked = _Asked(request, digest[0] if digest else None, busy, base)
    read = (_point(name, nodes, asked, finished, ended) for name in points)
    return Run(str(metadata["name"]), base, attempt, request, finished, tuple(read))


def _nodes(status: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], str]:
    """Return the nodes of a status, and what is wrong with them if they cannot be read."""
    nodes = status.get("nodes")
    packed = status.get("compressedNodes")
    if not nodes and packed:
        try:
            nodes = json.loads(unpack(str(packed), "the Workflow's status"))
        except (ScepsyError, ValueError, RecursionError) as error:
            return [], error.message if isinstance(error, ScepsyError) else "the Workflow's status is damaged"
    if not nodes and status.get("offloadNodeStatusVersion"):
        return [], "Argo keeps the Workflow's nodes in a database: collect through an argo-server (--argo-server)"
    return [node for node in _mapping(nodes).values() if isinstance(node, dict)], ""


def _point(name: str, nodes: Sequence[Mapping[str, Any]], asked: _Asked, finished: bool, ended: str) -> Point:
    attempts = _attempts(name, nodes)
    if not attempts:
        return Point(name, "failed", ended) if finished else Point(name, "waiting")
    last = attempts[-1]
    phase, message = str(last.get("phase")), _text(last.get("message"))
    if phase not in (*_FINISHED, "Omitted", "Skipped"):
        if finished:
            return Point(name, "failed", ended, partial=_partial(attempts))
        return Point(name, "running" if phase == "Running" else "waiting", message)
    outputs = _parameters(_mapping(last.get("outputs")))
    try:
        point = _result(name, outputs, asked, message, ended)
    except ScepsyError as error:
        point = Point(name, "failed", _text(error.message))
    if point.state in DONE:
        return point
    point = replace(point, partial=_partial(attempts))
    retried = next((str(n.get("phase")) for n in nodes if n.get("type") == "Retry" and _is_of(n, name)), "")
    if not finished and retried in ("Running", "Pending"):
        return replace(point, state="waiting", reason=f"will be retried: {point.reason}")
    return point


def _attempts(name: str, nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the nodes of a point's pods, in the order in which they were tried."""
    of_point = [node for node in nodes if _is_of(node, name)]
    pods = [node for node in of_point if node.get("type") == "Pod"]
    children = [node.get("children") for node in of_point if node.get("type") == "Retry"]
    order = [str(child) for listed in children if isinstance(listed, list) for child in listed]
    place = {child: number for number, child in enumerate(order)}
    # A retried point's children are in order; without retries, the start time decides.
    pods.sort(key=lambda node: (place.get(str(node.get("id")), -1), str(node.get("startedAt") or "~")))
    # Before its first pod there is only the node of the retries, which then says what it waits for.
    return pods or [node for node in of_point if node.get("type") == "Retry"]


def _is_of(node: Mapping[str, Any], name: str) -> bool:
    template = node.get("templateName") or _mapping(node.get("templateRef")).get("template")
    return template == _MEASURE and _parameters(_mapping(node.get("inputs"))).get("name") == name


def _partial(attempts: Sequence[Mapping[str, Any]]) -> str:
    """Return the last journal that an attempt left, if it is whole."""
    for node in reversed(attempts):
        partial = _parameters(_mapping(node.get("outputs"))).get("partial", "").strip()
        if partial:
            try:
                unpack(partial, "the journal")
            except ScepsyError:
                continue
            return partial
    return ""


def _result(name: str, outputs: Mapping[str, str], asked: _Asked, message: str, ended: str) -> Point:
    """Return a point whose last pod is over; `message` is what Argo says of it.

    Raises:
        ScepsyError: its result is damaged, or contradicts the request.
    """
    if not outputs.get("outcome", "").strip():
        # Killed, evicted, out of time: it had no time to write an outcome.
        return Point(name, "failed", message or ended)
    try:
        outcome = _mapping(json.loads(outputs["outcome"]))
    except (ValueError, RecursionError) as error:
        raise ScepsyError("its result is damaged: the outcome is not a JSON object") from error
    result, reason = str(outcome.get("outcome")), _text(outcome.get("reason"))
    if result in ("failed", "interrupted"):
        # An exit code says no more than the reason; that it was killed, or out of time, does.
        more = f" ({message})" if message and not _EXIT_CODE.fullmatch(message) else ""
        return Point(name, "failed", (reason or result) + more)
    if result not in DONE:
        raise ScepsyError(f'its result is damaged: "{printable(result[:40])}" is not an outcome')
    packed = outputs.get("profile", "").strip()
    if not packed:
        raise ScepsyError("its result is damaged: there is no Profile")
    try:
        profile = _profile(unpack(packed, "the Profile"), name)
    except ScepsyError as error:
        raise ScepsyError(f"its result is damaged: {error.message.partition(chr(10))[0]}") from error
    shape = shape_of(name)
    assert shape is not None  # noqa: S101 - names of points were checked
    contradiction = _contradiction(profile, shape, asked, result)
    if contradiction:
        raise ScepsyError(f"its result is not what was requested: {contradiction}")
    named = _named(profile, f"{asked.base}-{name}", asked.request)
    if result == "unusable":
        return Point(name, "unusable", profile.spec.unusable[0].reason, named)
    return Point(name, "measured", reason, named)


def _profile(text: str, name: str) -> Profile:
    sources = parse(SourceFile(f"the Profile of {name}", text.encode()))
    if len(sources) != 1:
        raise ScepsyError(f"{len(sources)} documents in place of one Profile")
    try:
        return validate(sources[0], Profile)
    except DocumentError as error:
        raise ScepsyError(error.diagnostics[0].message) from error


def _contradiction(profile: Profile, shape: Shape, asked: _Asked, outcome: str) -> str:
    """Say where a Profile is not what was asked for; nothing if it is."""
    spec, request = profile.spec, asked.request
    measured = len(spec.series) == 1 and not spec.unusable
    if outcome == "measured" and not measured:
        return f"{len(spec.series)} series and {len(spec.unusable)} unusable shapes in place of one series"
    if outcome == "unusable" and (len(spec.unusable) != 1 or spec.series):
        return f"{len(spec.unusable)} unusable shapes and {len(spec.series)} series in place of one unusable shape"
    entry = spec.series[0] if measured else spec.unusable[0]
    rows: list[tuple[str, object, object]] = [
        ("source", spec.source, "measured"),
        ("model", spec.model, request.model),
        ("revision", spec.revision, request.revision),
        ("product", spec.product, request.product),
        ("engine version", spec.engine.version, request.engine),
        ("tensor parallelism", entry.tp, shape.tp),
        ("share", round(entry.share * 10), shape.tenths),
        ("trace digest", spec.provenance.trace_digest, request.trace_digest),
        # Runners of before it was noted do not name it.
        ("LLM", spec.provenance.llm or request.llm, request.llm),
    ]
    if measured:
        wanted = "busy" if point_name(shape) in asked.busy else "idle"
        rows.append(("neighbours", spec.series[0].neighbours or "idle", wanted))
    if asked.image_digest is not None:
        rows.append(("image digest", spec.provenance.image_digest, asked.image_digest))
    wrong = [f"{what} is {_shown(is_)}, requested was {_shown(want)}" for what, is_, want in rows if is_ != want]
    return "; ".join(wrong)


def _named(profile: Profile, name: str, request: Request) -> Profile:
    """Return a Profile under its name among others, with what the request knows of the calls."""
    provenance, note = profile.spec.provenance, note_of(request.plain())
    sentences = _SENTENCE.split(provenance.notes or "")
    if request.calls == "made":
        # The runner cannot know it.
        sentences = [sentence for sentence in sentences if "recorded" not in sentence]
    notes = " ".join(sentence for sentence in (note, *sentences) if sentence)
    provenance = provenance.model_copy(update={"notes": notes or None, "llm": request.llm})
    spec = profile.spec.model_copy(update={"provenance": provenance})
    return profile.model_copy(update={"metadata": FileMetadata(name=name), "spec": spec})


def _shown(value: object) -> str:
    return "none" if value is None else printable(str(value)[:80])


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _parameters(holder: Mapping[str, Any]) -> dict[str, str]:
    listed = holder.get("parameters")
    return {
        str(item["name"]): str(item.get("value") or "")
        for item in (listed if isinstance(listed, list) else [])
        if isinstance(item, dict) and "name" in item
    }


def _text(value: Any) -> str:
    return printable(" ".join(str(value or "").split()))[:_LONGEST_REASON]


@dataclass(frozen=True)
class Outcome:
    """All attempts at one sweep together.

    Attributes:
        base: the name of the first attempt; also that of the file with its Profiles.
        request: what was asked for.
        runs: the attempts, by number.
        points: per point the best result of all attempts: a Profile if there is one, else that of the last attempt.
    """

    base: str
    request: Request
    runs: tuple[Run, ...]
    points: tuple[Point, ...]

    @property
    def last(self) -> Run:
        """The last attempt."""
        return self.runs[-1]

    @property
    def finished(self) -> bool:
        """Whether no attempt is under way."""
        return self.last.finished

    @property
    def profiles(self) -> list[Profile]:
        """The Profiles, by tensor-parallel degree, then by share, largest first."""
        found = [point for point in self.points if point.profile is not None]
        return [point.profile for point in sorted(found, key=_order) if point.profile is not None]

    @property
    def lacking(self) -> tuple[Point, ...]:
        """Points without a Profile."""
        return tuple(point for point in self.points if point.state not in DONE)


def _order(point: Point) -> tuple[int, int]:
    shape = shape_of(point.name)
    return (shape.tp, -shape.tenths) if shape else (0, 0)


def outcomes_of(workflows: Iterable[Mapping[str, Any]]) -> list[Outcome]:
    """Return the outcomes of sweeps, by name; other Workflows are left out."""
    by_base: dict[str, list[Run]] = {}
    for workflow in workflows:
        run = read_run(workflow)
        if run is not None:
            by_base.setdefault(run.base, []).append(run)
    return [_outcome(sorted(runs, key=lambda run: run.attempt)) for _, runs in sorted(by_base.items())]


def _outcome(runs: list[Run]) -> Outcome:
    best: dict[str, Point] = {}
    for run in runs:
        for point in run.points:
            before = best.get(point.name)
            if before is None or before.state not in DONE:
                # A journal of an earlier attempt is better than none.
                kept = before.partial if before is not None and not point.partial else point.partial
                best[point.name] = replace(point, partial="" if point.state in DONE else kept)
    return Outcome(runs[0].base, runs[0].request, tuple(runs), tuple(sorted(best.values(), key=_order)))


def file_of(outcome: Outcome, existing: Iterable[Profile] = ()) -> bytes:
    """Return the content of the file with a sweep's Profiles, `<base>.yaml`; there must be one.

    Args:
        outcome: the sweep.
        existing: what the file holds now. What is not measured here stays: its Workflow may be gone from the cluster.
    """
    measured = {profile.metadata.name: profile for profile in outcome.profiles}
    kept = {profile.metadata.name: profile for profile in existing}
    return emit(*(profile.plain() for profile in sorted({**kept, **measured}.values(), key=_place)))


def _place(profile: Profile) -> tuple[int, float, str]:
    entry = profile.spec.series[0] if profile.spec.series else profile.spec.unusable[0]
    return entry.tp, -entry.share, profile.metadata.name
