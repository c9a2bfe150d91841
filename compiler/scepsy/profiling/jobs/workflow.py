"""A sweep → the Argo Workflow that measures it: names, claims, arguments. The same sweep gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ConfigDict

from scepsy.demand.job_calls import JobCalls
from scepsy.documents import Cluster, Plan, Project
from scepsy.documents.cluster import Sharing
from scepsy.documents.model import Model
from scepsy.documents.profile import Neighbours
from scepsy.documents.units import format_memory
from scepsy.errors import ScepsyError
from scepsy.manifests.engine import GIB, SHM, startup_seconds
from scepsy.profiling.jobs.gpus import Allowed, allowed_gpus, claim_of
from scepsy.profiling.planning.sweep import Shape, Sweep, neighbours_in
from scepsy.sharing import backend_of

TEMPLATE = "scepsy-profile"
"""The WorkflowTemplate (profiling-jobs/profile.yaml)."""
LABELS = {"app.kubernetes.io/part-of": "scepsy", "app.kubernetes.io/component": "profiling"}
"""Labels of everything that a job makes."""
SWEEP = "scepsy.dev/sweep"
"""Label with the digest of what is measured, without the points: a job can resume from the journals of another."""
REQUEST = "scepsy.dev/request"
"""Annotation with the request, so that results can be checked against it."""
UNKNOWN_WEIGHTS = 140 * GIB
"""Bytes of weights of a model without a profile, to compute how long to wait for the engine's start."""
MARGIN = 900
"""Seconds that a pod may take beside the engine's start and the budget: rehearsal, the last point, the end."""
RESUME = 24 * 1024
"""Characters of a packed journal that another attempt takes; with a longer one, the measurement starts again."""
RESUME_ALL = 32 * 1024
"""The same for all points of a sweep together: with the calls they go into one ConfigMap, and through one pod."""

_POINT = re.compile(r"tp(1|2|4|8)-s([1-9]|10)")
_NAME = re.compile(r"(?P<base>profile-[a-z0-9-]+-[0-9a-f]{10})(-r(?P<attempt>[1-9][0-9]{0,5}))?")


class Request(Model):
    """What a Workflow was submitted for, as its annotation keeps it."""

    # A later version may add to it.
    model_config = ConfigDict(extra="ignore")

    project: str
    """The project's name."""
    cluster: str
    """The cluster's name in it."""
    model: str
    """The model."""
    revision: str | None = None
    """Its revision, if it is pinned."""
    product: str
    """The GPU product."""
    llm: str
    """The LLM whose calls are replayed."""
    workflow: str
    """The workflow that makes them."""
    trace_digest: str
    """Digest of the trace that the calls are from; of the calls themselves where they were made up."""
    engine: str
    """The engine's version."""
    calls: Literal["recorded", "made"] = "recorded"
    """Whether the calls were recorded, or made up from a summary or statistics."""
    replayed: int = 0
    """How many calls are replayed."""
    of: int = 0
    """Of how many that the trace has."""


@dataclass(frozen=True)
class Job:
    """One sweep, ready to be submitted.

    Attributes:
        sweep: what to measure.
        request: what results are checked against.
        calls: what is replayed.
        namespace: where the Workflow runs.
        image: of its pods.
        budget: seconds for one point.
        sharing: how the cluster shares GPUs.
        neighbours: what the rest of a GPU does while a share is measured.
        deadline: seconds that a point's pod may run.
        allowed: per shape the GPUs.
        left_out: shapes for which there are no GPUs now, and why.
        digest: of all that decides the result of a point.
        name: of the first attempt; ends in a digest of that and the points.
    """

    sweep: Sweep
    request: Request
    calls: JobCalls
    namespace: str
    image: str
    budget: float
    sharing: Sharing
    deadline: int
    allowed: Mapping[Shape, Allowed]
    left_out: tuple[tuple[Shape, str], ...] = ()
    neighbours: Neighbours = "idle"
    digest: str = field(init=False, default="")
    name: str = field(init=False, default="")

    def __post_init__(self) -> None:
        decisive = _decisive(self)
        object.__setattr__(self, "digest", _digest(decisive))
        whole = _digest({**decisive, "points": sorted(self.points)})
        object.__setattr__(self, "name", f"profile-{_slug(self.sweep.model)}-{whole}")

    @property
    def points(self) -> tuple[str, ...]:
        """Names of the points."""
        return tuple(point_name(point.shape) for point in self.sweep.points)


def job_of(
    sweep: Sweep, project: Project, cluster: Cluster, plan: Plan | None, calls: JobCalls, weights: int | None = None
) -> Job:
    """Return the job for a sweep; shapes for which there are no GPUs now are left out.

    Args:
        sweep: what to measure.
        project: settings.
        cluster: where.
        plan: the plan in force; its instances' GPUs are left alone.
        calls: what is replayed.
        weights: bytes of the model's weights, if they are known.

    Raises:
        ScepsyError: no image is set, or there are no GPUs for any of the shapes.
    """
    settings = project.spec.profiling
    if settings.image is None:
        raise ScepsyError(
            "no image is set for profiling jobs",
            "build profiling-jobs/Dockerfile, push it, and set it in scepsy.yaml: spec.profiling.image",
        )
    start = startup_seconds(UNKNOWN_WEIGHTS if weights is None else weights)
    allowed: dict[Shape, Allowed] = {}
    problems: dict[Shape, ScepsyError] = {}
    for shape in (point.shape for point in sweep.points):
        try:
            allowed[shape] = allowed_gpus(cluster, sweep.product, shape.tp, plan)
        except ScepsyError as error:
            problems[shape] = error
    if not allowed:
        raise next(iter(problems.values()))
    return Job(
        sweep=replace(sweep, points=tuple(point for point in sweep.points if point.shape in allowed)),
        request=Request(
            project=project.metadata.name,
            cluster=cluster.metadata.name,
            model=sweep.model,
            revision=sweep.revision,
            product=sweep.product,
            llm=sweep.llm,
            workflow=sweep.workflow,
            trace_digest=calls.digest,
            engine=project.spec.engine.version,
            calls=calls.source,
            replayed=calls.calls,
            of=calls.of,
        ),
        calls=calls,
        namespace=settings.namespace,
        image=settings.image,
        budget=settings.budget,
        sharing=cluster.spec.sharing,
        deadline=start + math.ceil(settings.budget) + MARGIN,
        allowed=allowed,
        left_out=tuple((shape, error.message) for shape, error in problems.items()),
        neighbours=neighbours_in(project, cluster),
    )


def workflow_of(
    job: Job, attempt: int = 1, points: Sequence[str] | None = None, resume: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the Workflow object of an attempt at a job.

    Args:
        job: the job.
        attempt: 1, or more where earlier ones left points out.
        points: names of the points to measure; all if None.
        resume: packed journals of earlier attempts, by point; those that are too long are left behind.
    """
    name = attempt_name(job.name, attempt)
    wanted = [point.shape for point in job.sweep.points if points is None or point_name(point.shape) in points]
    journals = _affordable({name: text for name, text in (resume or {}).items() if shape_of(name) in wanted})
    claims = {shape: f"{name}-{point_name(shape)}" for shape in wanted}
    manifests = {
        claim: claim_of(claim, job.namespace, LABELS, shape, job.allowed[shape], job.sharing)
        for shape, claim in claims.items()
    }
    parameters = {
        "image": job.image,
        "model": job.sweep.model,
        "revision": job.sweep.revision or "",
        "llm": job.sweep.llm,
        "product": job.sweep.product,
        "memory": str(min(allowed.memory for allowed in job.allowed.values())),
        "sharing": job.sharing,
        "max-num-seqs": str(job.sweep.max_num_seqs),
        "max-model-len": str(job.sweep.max_model_len or ""),
        "budget": f"{job.budget:g}s",
        "deadline": str(job.deadline),
        "trace-digest": job.request.trace_digest,
        "pool": job.sweep.product,
        "calls": job.calls.packed,
        "claims": _json([{"name": claim, "manifest": _json(manifest)} for claim, manifest in manifests.items()]),
        "points": _json([_point(shape, claims[shape], job, journals.get(point_name(shape), "")) for shape in wanted]),
    }
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {
            "name": name,
            "namespace": job.namespace,
            "labels": {**LABELS, SWEEP: job.digest},
            "annotations": {REQUEST: _json(job.request.plain())},
        },
        "spec": {
            "workflowTemplateRef": {"name": TEMPLATE},
            "arguments": {"parameters": [{"name": key, "value": value} for key, value in parameters.items()]},
        },
    }


def _point(shape: Shape, claim: str, job: Job, journal: str) -> dict[str, str]:
    """Return a point's parameters; CPU and host memory as an instance asks for them, but never part of a core's."""
    backend = backend_of(job.sharing)
    busy = backend.busy_neighbours and shape.tenths < 10 and job.neighbours == "busy"
    return {
        "name": point_name(shape),
        "tp": str(shape.tp),
        "share": f"{shape.share:.1f}",
        "claim": claim,
        "neighbours": "busy" if busy else "idle",
        # A busy neighbour mostly waits, but must start each copy on time.
        "cpu": str(2 + shape.tp + busy),
        "host-memory": format_memory((4 + 2 * shape.tp) * GIB),
        **({"shm": format_memory(SHM)} if shape.tp > 1 and not backend.mounts_shm(shape.share) else {}),
        "resume": journal,
    }


def _affordable(resume: Mapping[str, str]) -> dict[str, str]:
    """Return the journals that fit, the shortest first."""
    left, kept = RESUME_ALL, {}
    for name, journal in sorted(resume.items(), key=lambda item: (len(item[1]), item[0])):
        if len(journal) <= min(left, RESUME):
            kept[name] = journal
            left -= len(journal)
    return kept


def _decisive(job: Job) -> dict[str, Any]:
    """Return all that decides the result of a point."""
    return {
        "model": job.sweep.model,
        "revision": job.sweep.revision,
        "product": job.sweep.product,
        "llm": job.sweep.llm,
        "calls": job.calls.text,
        "image": job.image,
        "max-num-seqs": job.sweep.max_num_seqs,
        "max-model-len": job.sweep.max_model_len,
        "budget": job.budget,
        "sharing": job.sharing,
        # Left out where they are idle: so were they before there were others.
        **({"neighbours": "busy"} if job.neighbours == "busy" else {}),
    }


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def point_name(shape: Shape) -> str:
    """Return a point's name, such as `tp2-s10`."""
    return f"tp{shape.tp}-s{shape.tenths}"


def shape_of(name: str) -> Shape | None:
    """Return the shape of a point's name; None if the name is invalid."""
    match = _POINT.fullmatch(name)
    return Shape(int(match[1]), int(match[2])) if match else None


def attempt_name(base: str, attempt: int) -> str:
    """Return the name of an attempt's Workflow."""
    return base if attempt == 1 else f"{base}-r{attempt}"


def parsed_name(name: str) -> tuple[str, int] | None:
    """Return the name of the first attempt and the number of this one; None if it is not the name of a job."""
    match = _NAME.fullmatch(name)
    return (match["base"], int(match["attempt"] or 1)) if match else None


def _slug(model: str) -> str:
    text = re.sub(r"[^a-z0-9]+", "-", model.rpartition("/")[2].lower()).strip("-")
    return text[:36].rstrip("-") or "model"


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
