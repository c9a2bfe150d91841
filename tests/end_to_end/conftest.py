"""A cluster, and repositories that Argo CD syncs into it."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Iterator

import pytest

from tests.conftest import Scepsy
from tests.end_to_end.cluster import ClusterUnderTest
from tests.end_to_end.processes import ProgramEnded
from tests.end_to_end.profiling import CONTROLLER, start_controller
from tests.end_to_end.programs import MissingTool, programs
from tests.end_to_end.project import MakeProject, ScepsyProject

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def shared_cluster(request: pytest.FixtureRequest) -> Iterator[ClusterUnderTest]:
    """The one cluster of all tests."""
    # CI cancels with SIGTERM, of which pytest alone would die without cleaning up.
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))
    try:
        made = ClusterUnderTest(programs())
    except (MissingTool, ProgramEnded) as error:
        pytest.exit(str(error), returncode=1)
    try:
        yield made
    finally:
        failed = request.session.testsfailed > 0
        made.stop(keep=failed)
        if failed:
            print(f"\nThe cluster's logs are in {made.processes.logs}")


@pytest.fixture
def cluster(shared_cluster: ClusterUnderTest) -> Iterator[ClusterUnderTest]:
    """The cluster, and nothing in it that another test deployed."""
    shared_cluster.processes.alive()
    yield shared_cluster
    shared_cluster.remove_environments()


@pytest.fixture(scope="module")
def controller(shared_cluster: ClusterUnderTest) -> Iterator[None]:
    """A real workflow-controller of Argo Workflows, where there is one."""
    program = shutil.which(CONTROLLER)
    if program is None:
        pytest.skip(f"no {CONTROLLER} on the PATH")
    start_controller(shared_cluster, program)
    yield None
    shared_cluster.processes.stop_one(CONTROLLER)


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, scepsy: Scepsy) -> MakeProject:
    """Make a project from an example, compiled, committed and pushed, in a namespace of its own."""

    def make(example: str, push: bool = True, sharing: str = "") -> ScepsyProject:
        number = next(_numbers)
        # The process id keeps two runs apart that use the same cluster.
        namespace = f"scepsy-tests-{os.getpid()}-{number}"
        # Not tmp_path: interrupted while it is set up, pytest 9 fails to take it down.
        made = ScepsyProject.from_example(tmp_path_factory.mktemp("project"), example, namespace, scepsy, sharing)
        if push:
            made.push()
        return made

    return make
