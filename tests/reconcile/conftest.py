"""The Kubernetes API server of the tests of discovery, and a kubeconfig for it."""

from tests.cluster.conftest import kubeconfig, world

__all__ = ["kubeconfig", "world"]
