"""`scepsy drift`: looks at the world against the committed Plan."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from scepsy.compilation import Inputs, collect_inputs
from scepsy.documents import DocumentError, Plan, Workspace, contained
from scepsy.documents.drift_result import DriftResponse, DriftResult
from scepsy.documents.failure import failure_of
from scepsy.documents.loading import validate
from scepsy.documents.source import SourceFile, parse
from scepsy.documents.units import option_duration
from scepsy.drift.check import Look, Reader, World, look, result_of
from scepsy.drift.collector import Settings
from scepsy.drift.finding import Area, Report
from scepsy.drift.lost_hardware import known_missing
from scepsy.drift.prometheus import Prometheus, access_of
from scepsy.errors import ScepsyError
from scepsy.reconcile.decision import Response, respond
from scepsy.repository import WorkTree
from scepsy.repository.project import open_project
from scepsy.repository.worktree import changed_at, read_at_head

if TYPE_CHECKING:
    from scepsy.cluster.kubernetes import Kubernetes
    from scepsy.drift.objects import Seen

_RATE = re.compile(r"(?P<count>[0-9]+(?:\.[0-9]+)?)\s*(?:/|per)\s*(?P<time>.+)")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
ARGO_CD = "argocd"
"""Namespace of Applications, where none is named."""


@dataclass(frozen=True)
class Options:
    """What was asked for, as it was written.

    Attributes:
        project: directory with `scepsy.yaml`.
        cluster: the cluster; the only one if None.
        prometheus: address of the Prometheus; None for none.
        match: `label=value` of its series.
        window: how long before now is read in full.
        alarms: false alarms that are allowed.
        below: how long a lack must last, or `never`.
        older: how old a profile may be.
        context: a context of the kubeconfig; None for a pod's own cluster, if this is a pod.
        application: the Argo CD Application, `namespace/name` or `name`.
    """

    project: Path
    cluster: str | None = None
    prometheus: str | None = None
    match: Sequence[str] = ()
    window: str = "1h"
    alarms: str = "1/10000h"
    below: str = "24h"
    older: str | None = None
    context: str | None = None
    application: str | None = None


@dataclass(frozen=True)
class Looked:
    """What one look gave, and what it was judged against.

    Attributes:
        workspace: the project.
        tree: the Git work tree around it, if any.
        inputs: what the Plan is compiled from, or why that cannot be read.
        plan: the committed Plan.
        changed: when it last changed, Unix seconds; None if nobody knows.
        kubernetes: the live cluster, if one was looked at.
        seen: what was seen.
        response: what to do about it.
        result: the same as the published object. Its `error` is set where something that was asked for could not be
            looked at and nothing was found elsewhere: "no drift" would then be no answer.
    """

    workspace: Workspace
    tree: WorkTree | None
    inputs: Inputs | ScepsyError
    plan: Plan
    changed: float | None
    kubernetes: Kubernetes | None
    seen: Look
    response: Response
    result: DriftResult


class Lookout:
    """Looks as often as it is asked to; what an Application was like the last time counts for the next look.

    Raises:
        ScepsyError: the options are wrong.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._settings = Settings(alarms=_alarms(options.alarms), below=_below(options.below))
        self._window = _window(options.window)
        older = options.older
        self._oldest = None if older is None else _days(older)
        self._matchers = _matchers(options.match)
        self._prometheus = None if options.prometheus is None else Prometheus(access_of(options.prometheus))
        self._seen: Seen | None = None
        self.kubernetes = _kubernetes(options)

    def look(self) -> Looked:
        """Look once, at the project as it is now.

        Raises:
            ScepsyError: there is no plan, or the documents are wrong.
        """
        workspace, tree = open_project(self._options.project)
        cluster = _cluster(workspace, self._options.cluster)
        path = plan_path(workspace, cluster)
        plan = _plan(workspace, tree, path, cluster)
        changed = changed_at(tree, path) if tree is not None else None
        readers = self._readers(workspace, cluster)
        world = World(self._prometheus, time.time, self._matchers, self._window, readers, changed)
        inputs = _inputs(workspace, cluster)
        seen = look(workspace, inputs, plan, world, self._settings, self._oldest)
        settings = workspace.project.document.spec.drift
        priorities = {} if isinstance(inputs, ScepsyError) else _priorities(inputs)
        response = respond(seen, priorities, settings, changed)
        result = result_of(plan, seen, self._settings).model_copy(
            update={"response": DriftResponse(compile=response.compile, why=response.why)}
        )
        if seen.failed and not result.findings:
            result = result.model_copy(update={"error": failure_of(seen.failed[0])})
        return Looked(workspace, tree, inputs, plan, changed, self.kubernetes, seen, response, result)

    def _readers(self, workspace: Workspace, cluster: str) -> dict[Area, Reader]:
        """Return what looks at the live cluster, if anything does."""
        kubernetes = self.kubernetes
        if kubernetes is None:
            return {}
        from scepsy.drift import nodes as inventory  # noqa: PLC0415 - slow to import
        from scepsy.drift import objects  # noqa: PLC0415 - slow to import

        document, missing = workspace.clusters[cluster].document, known_missing(workspace, cluster)
        returned = workspace.project.document.spec.drift.settle
        application = _application(self._options)

        def live(plan: Plan, now: float) -> Report:
            there = objects.read(kubernetes, plan.spec.namespace, application)
            name = application[1] if application else None
            before = self._seen or objects.Seen()
            report, self._seen = objects.judge(there, plan, now, before, application=name)
            return report

        return {
            "cluster": lambda plan, now: inventory.look(document, plan, kubernetes, now, missing, returned),
            "objects": live,
        }


def _priorities(inputs: Inputs) -> dict[str, float]:
    return {name: workflow.spec.priority for name, workflow in inputs.workflows.items()}


def plan_path(workspace: Workspace, cluster: str) -> PurePosixPath:
    """Return the file of a cluster's plan, relative to the repository."""
    setting = workspace.project.document.spec.paths.plans
    directory = PurePosixPath(workspace.relative(contained(workspace.root, setting, workspace.directory)))
    return directory / f"{cluster}.yaml"


def _plan(workspace: Workspace, tree: WorkTree | None, path: PurePosixPath, cluster: str) -> Plan:
    """Return the committed plan; the one in the directory where there is no repository.

    Raises:
        ScepsyError: there is none, or it is one that this version cannot read.
    """
    file = workspace.root / path
    if tree is not None:
        data = read_at_head(tree, path) if tree.head is not None else None
    else:
        data = file.read_bytes() if file.is_file() else None
    if data is None:
        where = "committed" if tree else "written"
        raise ScepsyError(f'no plan of cluster "{cluster}" is {where} yet', "run: scepsy compile --commit")
    try:
        return validate(parse(SourceFile(path.as_posix(), data))[0], Plan)
    except (DocumentError, IndexError) as error:
        message = f"the committed {path} is not a Plan that this version can read"
        raise ScepsyError(message, "compile again with it: scepsy compile --commit") from error


def _cluster(workspace: Workspace, name: str | None) -> str:
    if name is not None:
        return workspace.cluster(name).document.metadata.name
    if len(workspace.clusters) > 1:
        names = ", ".join(workspace.clusters)
        raise ScepsyError("the project has several clusters", f"name one with --cluster: {names}")
    return next(iter(workspace.clusters))


def _inputs(workspace: Workspace, cluster: str) -> Inputs | ScepsyError:
    try:
        return collect_inputs(workspace, cluster)
    except ScepsyError as error:
        return error


def _kubernetes(options: Options) -> Kubernetes | None:
    """Return the live cluster: only one that was named, or whose pod this is.

    The current context of some kubeconfig may be any cluster; judged against this plan it would be all drift.
    """
    if options.context is None and not os.environ.get("KUBERNETES_SERVICE_HOST"):
        if options.application is not None:
            raise ScepsyError("--application needs a cluster", "name a context of the kubeconfig with --context")
        return None
    from scepsy.cluster.kubernetes import Kubernetes  # noqa: PLC0415 - slow to import

    return Kubernetes(options.context)


def _application(options: Options) -> tuple[str, str] | None:
    """Return namespace and name of the Argo CD Application, if one was named."""
    if options.application is None:
        return None
    namespace, _, name = options.application.rpartition("/")
    return namespace or ARGO_CD, name


def _days(text: str) -> int:
    seconds = option_duration(text, "--profiles-older-than")
    if not seconds:
        raise ScepsyError(f"--profiles-older-than: {text} is too short", "write 30min, 24h or 90d")
    return int(seconds // 86400)


def _window(text: str) -> int:
    seconds = option_duration(text, "--window")
    if not 900 <= seconds <= 86400:
        raise ScepsyError(f"--window: {text} is too {'short' if seconds < 900 else 'long'}", "15min to 24h")
    return int(seconds)


def _below(text: str) -> int | None:
    if text.strip() == "never":
        return None
    seconds = option_duration(text, "--below")
    if not 900 <= seconds <= 86400:
        raise ScepsyError(f"--below: {text} is too {'short' if seconds < 900 else 'long'}", "15min to 24h, or never")
    return int(seconds // 60)


def _alarms(text: str) -> float:
    """Return false alarms per hour."""
    match = _RATE.fullmatch(text.strip())
    hint = "write 1/1000h, or 1 per 365d"
    if match is None:
        raise ScepsyError(f'--alarms: "{text[:60]}" is not a number of false alarms in a time', hint)
    hours = option_duration(match["time"], "--alarms", math.inf) / 3600
    rate = float(match["count"]) / hours if hours else math.inf
    if not 1e-12 <= rate <= 0.1:
        raise ScepsyError(f"--alarms: {text[:60]} is too {'many' if rate > 0.1 else 'few'}", "at most 1/10h")
    return rate


def _matchers(given: Sequence[str]) -> Mapping[str, str]:
    found = {}
    for text in given:
        label, equals, value = text.partition("=")
        if not equals or not _LABEL.fullmatch(label):
            raise ScepsyError(f'--match: "{text[:60]}" is not a label and its value', "write cluster=prod-eu")
        found[label] = value
    return found
