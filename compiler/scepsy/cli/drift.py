"""`scepsy drift`: one look at the world against the committed Plan."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from scepsy.cli.compile import open_project
from scepsy.compilation import Inputs, gather
from scepsy.documents import DocumentError, Plan, Workspace, contained
from scepsy.documents.drift import DriftResult
from scepsy.documents.failure import failure_of
from scepsy.documents.loading import validate
from scepsy.documents.source import SourceFile, parse
from scepsy.drift.finding import Area, Report
from scepsy.drift.judging import Settings
from scepsy.drift.look import Reader, World, look, result_of
from scepsy.drift.prometheus import Prometheus, access_of
from scepsy.errors import ScepsyError
from scepsy.repository import WorkTree
from scepsy.repository.worktree import read_at_head

_SECONDS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_TIME = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>s|min|m|h|d|w)")
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


def run(options: Options) -> DriftResult:
    """Look once.

    Returns:
        What was found. Its `error` is set where something that was asked for could not be looked at and nothing was
        found elsewhere: "no drift" would then be no answer.

    Raises:
        ScepsyError: there is no plan, or the options or documents are wrong.
    """
    settings = Settings(alarms=_alarms(options.alarms), below=_below(options.below))
    window = _window(options.window)
    oldest = None if options.older is None else int(_time(options.older, "--profiles-older-than") // 86400)
    matchers = _matchers(options.match)
    workspace, tree = open_project(options.project)
    cluster = _cluster(workspace, options.cluster)
    plan = _plan(workspace, tree, cluster)
    prometheus = None if options.prometheus is None else Prometheus(access_of(options.prometheus))
    world = World(prometheus, time.time, matchers, window, _readers(workspace, cluster, options))
    seen = look(workspace, _inputs(workspace, cluster), plan, world, settings, oldest)
    result = result_of(plan, seen, settings)
    if seen.failed and not result.findings:
        return result.model_copy(update={"error": failure_of(seen.failed[0])})
    return result


def _plan(workspace: Workspace, tree: WorkTree | None, cluster: str) -> Plan:
    """Return the committed plan; the one in the directory where there is no repository.

    Raises:
        ScepsyError: there is none, or it is one that this version cannot read.
    """
    setting = workspace.project.document.spec.paths.plans
    directory = PurePosixPath(workspace.relative(contained(workspace.root, setting, workspace.directory)))
    path = directory / f"{cluster}.yaml"
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
        return gather(workspace, cluster)
    except ScepsyError as error:
        return error


def _readers(workspace: Workspace, cluster: str, options: Options) -> dict[Area, Reader]:
    """Return what looks at the live cluster: only one that was named, or whose pod this is.

    The current context of some kubeconfig may be any cluster; judged against this plan it would be all drift.
    """
    if options.context is None and not os.environ.get("KUBERNETES_SERVICE_HOST"):
        if options.application is not None:
            raise ScepsyError("--application needs a cluster", "name a context of the kubeconfig with --context")
        return {}
    from scepsy.cluster.access import Kubernetes  # noqa: PLC0415 - slow to import
    from scepsy.drift import inventory, objects  # noqa: PLC0415 - with it

    kubernetes = Kubernetes(options.context)
    document = workspace.cluster(cluster).document
    application: tuple[str, str] | None = None
    if options.application is not None:
        namespace, _, name = options.application.rpartition("/")
        application = (namespace or ARGO_CD, name)

    def live(plan: Plan, now: float) -> Report:
        there = objects.read(kubernetes, plan.spec.namespace, application)
        return objects.judge(there, plan, now, application=application[1] if application else None)[0]

    return {"cluster": lambda plan, now: inventory.look(document, plan, kubernetes, now), "objects": live}


def _time(text: str, option: str) -> float:
    match = _TIME.fullmatch(text.strip())
    if match is None or not 0 < float(match["number"]) < 1e9:
        raise ScepsyError(f'{option}: "{text[:60]}" is not a time', "write 30min, 24h or 90d")
    return float(match["number"]) * _SECONDS[match["unit"]]


def _window(text: str) -> int:
    seconds = _time(text, "--window")
    if not 900 <= seconds <= 86400:
        raise ScepsyError(f"--window: {text} is too {'short' if seconds < 900 else 'long'}", "15min to 24h")
    return int(seconds)


def _below(text: str) -> int | None:
    if text.strip() == "never":
        return None
    seconds = _time(text, "--below")
    if not 900 <= seconds <= 86400:
        raise ScepsyError(f"--below: {text} is too {'short' if seconds < 900 else 'long'}", "15min to 24h, or never")
    return int(seconds // 60)


def _alarms(text: str) -> float:
    """Return false alarms per hour."""
    match = _RATE.fullmatch(text.strip())
    hint = "write 1/1000h, or 1 per 365d"
    if match is None:
        raise ScepsyError(f'--alarms: "{text[:60]}" is not a number of false alarms in a time', hint)
    hours = _time(match["time"], "--alarms") / 3600
    rate = float(match["count"]) / hours
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
