"""Checks the committed Plan of a project for drift, and decides whether to recompile."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scepsy.compilation import Inputs, collect_inputs
from scepsy.documents import Plan, Workspace
from scepsy.documents.command_results import failure_of
from scepsy.documents.drift_result import Area, DriftResponse, DriftResult
from scepsy.drift.comparison import AreaCheck, Comparison, Sources, compare_with_plan
from scepsy.drift.finding import Report
from scepsy.drift.lost_hardware import known_missing
from scepsy.drift.prometheus import Prometheus, access_of
from scepsy.drift.result_document import result_of
from scepsy.errors import ScepsyError
from scepsy.reconcile.committed_plan import committed_plan, plan_path
from scepsy.reconcile.decision import Decision, decide
from scepsy.reconcile.options import Options
from scepsy.repository import WorkTree
from scepsy.repository.project import open_project
from scepsy.repository.worktree import changed_at

if TYPE_CHECKING:
    from scepsy.cluster.kubernetes import Kubernetes
    from scepsy.drift.argocd_application import FirstSeen


@dataclass(frozen=True)
class CheckResult:
    """The result of one check, and what was checked.

    Attributes:
        workspace: the project.
        tree: the Git work tree around it, if any.
        inputs: what the Plan is compiled from, or why that cannot be read.
        plan: the committed Plan.
        changed: when it last changed, Unix seconds; None if not known.
        kubernetes: the live cluster, if one was checked.
        comparison: the comparison with the Plan.
        decision: whether to recompile.
        document: the same as the published object. Its `error` is set if something that was asked for could not be
            read and nothing else was found: "no drift" would be wrong.
    """

    workspace: Workspace
    tree: WorkTree | None
    inputs: Inputs | ScepsyError
    plan: Plan
    changed: float | None
    kubernetes: Kubernetes | None
    comparison: Comparison
    decision: Decision
    document: DriftResult


class Checker:
    """Checks as often as it is called; between checks it keeps only when it first saw a state of the Application.

    Raises:
        ScepsyError: an option is wrong.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._settings = options.settings()
        self._window = options.window_seconds()
        self._oldest = options.oldest_days()
        self._matchers = options.matchers()
        self._prometheus = None if options.prometheus is None else Prometheus(access_of(options.prometheus))
        self._first_seen: FirstSeen | None = None
        self.kubernetes = _kubernetes(options)

    def check(self) -> CheckResult:
        """Check once, with the project as it is now.

        Raises:
            ScepsyError: there is no plan, or the documents are wrong.
        """
        workspace, tree = open_project(self._options.project)
        cluster = workspace.one_cluster(self._options.cluster)
        plan = committed_plan(workspace, tree, cluster)
        changed = changed_at(tree, plan_path(workspace, cluster)) if tree is not None else None
        areas = self._areas(workspace, cluster)
        sources = Sources(self._prometheus, time.time, self._matchers, self._window, areas, changed)
        inputs = _inputs(workspace, cluster)
        comparison = compare_with_plan(workspace, inputs, plan, sources, self._settings, self._oldest)
        settings = workspace.project.document.spec.drift
        decision = decide(comparison, _priorities(inputs), settings, changed)
        document = result_of(plan, comparison, self._settings).model_copy(
            update={"response": DriftResponse(compile=decision.compile, why=decision.why)}
        )
        if comparison.failed and not document.findings:
            document = document.model_copy(update={"error": failure_of(comparison.failed[0])})
        return CheckResult(workspace, tree, inputs, plan, changed, self.kubernetes, comparison, decision, document)

    def _areas(self, workspace: Workspace, cluster: str) -> dict[Area, AreaCheck]:
        """Return the checks of the live cluster; none without one."""
        kubernetes = self.kubernetes
        if kubernetes is None:
            return {}
        from scepsy.drift import nodes, objects  # noqa: PLC0415 - slow to import
        from scepsy.drift.argocd_application import NOTHING_SEEN  # noqa: PLC0415 - slow to import

        document, missing = workspace.clusters[cluster].document, known_missing(workspace, cluster)
        settle = workspace.project.document.spec.drift.settle
        application = self._options.application_name()

        def check_objects(plan: Plan, now: float) -> Report:
            live = objects.read(kubernetes, plan.spec.namespace, application)
            name = application[1] if application else None
            before = self._first_seen or NOTHING_SEEN
            report, self._first_seen = objects.check_objects(live, plan, now, before, application=name)
            return report

        return {
            "cluster": lambda plan, now: nodes.read_and_check(
                document, plan, kubernetes, now, missing, returned=settle
            ),
            "objects": check_objects,
        }


def _priorities(inputs: Inputs | ScepsyError) -> dict[str, float]:
    if isinstance(inputs, ScepsyError):
        return {}
    return {name: workflow.spec.priority for name, workflow in inputs.workflows.items()}


def _inputs(workspace: Workspace, cluster: str) -> Inputs | ScepsyError:
    try:
        return collect_inputs(workspace, cluster)
    except ScepsyError as error:
        return error


def _kubernetes(options: Options) -> Kubernetes | None:
    """Return the live cluster: the named one, or the one that this pod runs in.

    The kubeconfig's current context is not used: it may be any cluster, and against this plan all of it would be drift.
    """
    if options.context is None and not os.environ.get("KUBERNETES_SERVICE_HOST"):
        if options.application is not None:
            raise ScepsyError("--application needs a cluster", "name a context of the kubeconfig with --context")
        return None
    from scepsy.cluster.kubernetes import Kubernetes  # noqa: PLC0415 - slow to import

    return Kubernetes(options.context)
