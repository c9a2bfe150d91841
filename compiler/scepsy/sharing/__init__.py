"""The ways to share GPUs, one object each: what they allow, and what they need of claims, engines and Kubernetes.

A new way needs a file here, its name in `documents.cluster.Sharing`, and its case in `backend_of`; the type checker
reports what is missing.
"""

from __future__ import annotations

from typing import assert_never, get_args

from scepsy.documents.cluster import Cluster, Sharing
from scepsy.documents.diagnostics import Diagnostic
from scepsy.documents.loading import Loaded
from scepsy.sharing.backend import DeviceRequest, SharingBackend
from scepsy.sharing.exclusive import Exclusive
from scepsy.sharing.hami import Hami
from scepsy.sharing.mps import Mps

__all__ = [
    "BACKENDS",
    "CLUSTER_CHECKS",
    "DRIVERS",
    "DeviceRequest",
    "SharingBackend",
    "backend_of",
    "check_kubernetes_version",
    "default_backend",
    "supports_kubernetes",
]


def backend_of(sharing: Sharing) -> SharingBackend:
    """Return the backend of a name in Cluster documents."""
    match sharing:
        case "dra-exclusive":
            return Exclusive()
        case "dra-mps":
            return Mps()
        case "hami-dra":
            return Hami()
        case _:
            assert_never(sharing)


BACKENDS: tuple[SharingBackend, ...] = tuple(backend_of(name) for name in get_args(Sharing))
"""All backends, in the order of `Sharing`."""

DRIVERS: tuple[str, ...] = tuple(dict.fromkeys(backend.driver for backend in BACKENDS))
"""Their DRA drivers; the first is preferred where several publish GPUs."""


def default_backend(driver: str) -> SharingBackend:
    """Return the backend of a new Cluster document: the first one that uses the driver.

    Args:
        driver: one of `DRIVERS`.
    """
    return next(backend for backend in BACKENDS if backend.driver == driver)


def supports_kubernetes(sharing: Sharing, version: str) -> bool:
    """Return whether a backend runs on a version of Kubernetes such as `1.36`."""
    return tuple(map(int, version.split("."))) >= backend_of(sharing).least_kubernetes


def check_kubernetes_version(loaded: Loaded[Cluster]) -> list[Diagnostic]:
    """Return the problem of a cluster whose Kubernetes is too old for its way of sharing."""
    spec = loaded.document.spec
    if supports_kubernetes(spec.sharing, spec.kubernetes):
        return []
    backend = backend_of(spec.sharing)
    least = ".".join(map(str, backend.least_kubernetes))
    message = f"sharing by {backend.name} needs Kubernetes {least}, {backend.least_kubernetes_reason}"
    hint = f"use {backend.alternative}, or a newer cluster" if backend.alternative else "use a newer cluster"
    return [loaded.problem(("spec", "sharing"), message, hint)]


CLUSTER_CHECKS = (check_kubernetes_version,)
"""Checks on a project's Cluster documents, for `documents.load_workspace`."""
