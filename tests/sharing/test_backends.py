"""The ways to share GPUs: what each allows, and that none can be left out of one place."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import scepsy
from scepsy.documents import DocumentError
from scepsy.documents.checks import check_cluster
from scepsy.documents.cluster import Cluster, Sharing
from scepsy.documents.loading import load_file
from scepsy.sharing import BACKENDS, DRIVERS, backend_of, check_kubernetes_version, default_backend
from scepsy.sharing.backend import NVIDIA
from scepsy.sharing.hami import HAMI

GIB = 1 << 30
PACKAGE = Path(scepsy.__file__).parent
CLUSTER = """\
apiVersion: scepsy.dev/v1alpha1
kind: Cluster
metadata:
  name: lab
spec:
  kubernetes: "{version}"
  sharing: {sharing}
  nodes:
  - name: node-0
    product: NVIDIA-H100-80GB-HBM3
    gpus:
    - uuid: GPU-0
      memory: 80Gi
"""


def test_every_name_in_cluster_documents_has_the_backend_of_that_name() -> None:
    assert [backend.name for backend in BACKENDS] == list(get_args(Sharing))
    assert [backend_of(name).name for name in get_args(Sharing)] == list(get_args(Sharing))


def test_groups_can_have_fractions_only_where_single_gpus_can() -> None:
    assert {b.name: (b.fractions, b.group_fractions) for b in BACKENDS} == {
        "dra-exclusive": (False, False),
        "dra-mps": (True, True),
        "hami-dra": (True, False),
    }


def test_a_new_cluster_document_has_the_first_backend_of_its_driver() -> None:
    assert DRIVERS == (NVIDIA, HAMI)
    assert [default_backend(driver).name for driver in DRIVERS] == ["dra-exclusive", "hami-dra"]


@pytest.mark.parametrize("sharing", get_args(Sharing))
def test_a_whole_gpu_needs_no_limits(sharing: Sharing) -> None:
    backend = backend_of(sharing)
    assert backend.environment(1.0, 80 * GIB, 1) == {}
    assert backend.claim_parameters(1.0) is None
    assert not backend.mounts_shm(1.0)


def test_under_mps_limits_stand_in_the_environment_and_the_claim_names_the_strategy() -> None:
    backend = backend_of("dra-mps")
    assert backend.environment(0.3, 24 * GIB, 2) == {
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "30",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=24576M,1=24576M",
    }
    parameters = backend.claim_parameters(0.3)
    assert parameters is not None
    assert parameters["sharing"] == {"strategy": "MPS"}
    assert [(r.name, r.count, r.capacity) for r in backend.requests(("GPU-0", "GPU-1"), 2, 0.3, 24 * GIB)] == [
        ("gpus", 2, None)
    ]


def test_under_hami_each_gpu_has_its_request_with_a_capacity() -> None:
    backend = backend_of("hami-dra")
    capacity = {"cores": "30", "memory": "24Gi"}
    pair = backend.requests(("GPU-0", "GPU-1", "GPU-2"), 2, 0.3, 24 * GIB)
    assert [(r.name, r.gpus, r.capacity) for r in pair] == [
        ("gpu-0", ("GPU-0",), capacity),
        ("gpu-1", ("GPU-1",), capacity),
    ]
    (single,) = backend.requests(("GPU-0", "GPU-1"), 1, 0.3, 24 * GIB)
    assert (single.name, single.gpus, single.capacity) == ("gpu-0", ("GPU-0", "GPU-1"), capacity)
    assert backend.flags(1) == []
    assert backend.flags(2) == ["--disable-custom-all-reduce"]


@pytest.mark.parametrize(
    ("sharing", "version", "problem"),
    [
        ("dra-exclusive", "1.34", None),
        ("dra-mps", "1.34", None),
        ("hami-dra", "1.36", None),
        (
            "hami-dra",
            "1.35",
            "lab.yaml:7:3: sharing by hami-dra needs Kubernetes 1.36, where devices can be allocated in part by default\n"
            "  7 |   sharing: hami-dra\n"
            "    |   ^\n"
            "  use dra-mps, or a newer cluster",
        ),
    ],
)
def test_a_kubernetes_that_is_too_old_is_reported_at_its_place(
    sharing: str, version: str, problem: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(CLUSTER.format(sharing=sharing, version=version))
    _, (loaded,), problems = load_file(path, "lab.yaml", Cluster)
    assert problems == []
    assert check_cluster(loaded) == []
    found = check_kubernetes_version(loaded)
    assert str(DocumentError(found)) == (problem or "")


def type_errors(tmp_path: Path) -> str:
    """Type-check the copy of the package below `tmp_path`; return what mypy prints."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir=mypy", "-p", "scepsy.sharing"]
    environment = {**os.environ, "MYPYPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_the_type_checker_reports_a_backend_that_is_not_registered_or_not_complete(tmp_path: Path) -> None:
    package = tmp_path / "scepsy"
    shutil.copytree(PACKAGE / "sharing", package / "sharing", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PACKAGE / "documents", package / "documents", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "errors.py", "py.typed"):
        if (PACKAGE / name).exists():
            shutil.copy(PACKAGE / name, package / name)
    cluster = package / "documents" / "cluster.py"
    cluster.write_text(cluster.read_text().replace('"hami-dra"]', '"hami-dra", "toy"]'))
    toy = (package / "sharing" / "hami.py").read_text().replace("hami-dra", "toy").replace("class Hami", "class Toy")
    (package / "sharing" / "toy.py").write_text(toy.replace("    group_fractions = False\n", ""))
    assert 'Argument 1 to "assert_never" has incompatible type "Literal[\'toy\']"' in type_errors(tmp_path)
    registry = package / "sharing" / "__init__.py"
    text = registry.read_text()
    registered = text.replace("        case _:\n", '        case "toy":\n            return Toy()\n        case _:\n')
    registry.write_text(registered.replace("import Mps\n", "import Mps\nfrom scepsy.sharing.toy import Toy\n"))
    printed = type_errors(tmp_path)
    assert "assert_never" not in printed
    assert 'Cannot instantiate abstract class "Toy" with abstract attribute "group_fractions"' in printed
    (package / "sharing" / "toy.py").write_text(toy)
    assert "Success: no issues found" in type_errors(tmp_path)
