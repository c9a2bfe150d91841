"""The target of jobs: a project, one of its clusters, and how to reach that cluster."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from scepsy.documents import Workspace
from scepsy.profiling.jobs.argo_client import Jobs, connect
from scepsy.profiling.jobs.output import Print


@dataclass(frozen=True)
class Target:
    """A cluster of a project, and how to reach it.

    Attributes:
        project: directory with `scepsy.yaml`.
        cluster: the cluster's name in the project; None for the only one.
        context: a context of the kubeconfig.
        argo_server: address of an argo-server.
    """

    project: Path
    cluster: str | None
    context: str | None
    argo_server: str | None

    def command(self, command: str) -> str:
        """Return a command for the same target, as the user types it."""
        words = ["scepsy", *command.split()]
        given = {"--cluster": self.cluster, "--context": self.context, "--argo-server": self.argo_server}
        words += [word for option, value in given.items() if value is not None for word in (option, value)]
        words += ["--project", str(self.project)] if self.project != Path() else []
        return shlex.join(words)

    def cluster_name(self, workspace: Workspace) -> str:
        """Return the cluster's name.

        Raises:
            ScepsyError: there is no such cluster, or none is given and the project has several.
        """
        return workspace.one_cluster(self.cluster)

    def connect(self, notice: Print) -> Jobs:
        """Connect to the cluster; `notice` gets a line when that takes long.

        Raises:
            ScepsyError: it cannot be reached, or the options contradict each other.
        """
        jobs = connect(self.context, self.argo_server)
        jobs.say = notice
        return jobs
