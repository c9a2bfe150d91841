"""The Kubernetes API server of the tests of discovery, and a kubeconfig for it."""

from tests.discovery.conftest import kubeconfig, world

__all__ = ["kubeconfig", "world"]
