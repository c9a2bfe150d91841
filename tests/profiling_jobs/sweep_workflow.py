"""A Workflow such as `scepsy profile submit` makes: what the WorkflowTemplate `scepsy-profile` is given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
TEMPLATE = ROOT / "profiling-jobs" / "profile.yaml"
PRODUCT = "NVIDIA-H100-80GB-HBM3"
IMAGE = "registry.example.com/scepsy/profile:v0.24.0@sha256:" + "ab" * 32
NVIDIA = "gpu.nvidia.com"


def template() -> Object:
    """Return the WorkflowTemplate as it stands in the repository."""
    return dict(yaml.safe_load(TEMPLATE.read_text(encoding="utf-8")))


def parts() -> dict[str, Object]:
    """Return its templates by name."""
    return {part["name"]: part for part in template()["spec"]["templates"]}


def claim(name: str, gpus: Sequence[str]) -> Object:
    """Return a ResourceClaimTemplate for exactly these GPUs."""
    exactly = {
        "deviceClassName": NVIDIA,
        "allocationMode": "ExactCount",
        "count": len(gpus),
        "selectors": [{"cel": {"expression": f'device.attributes["{NVIDIA}"].uuid in {json.dumps(gpus)}'}}],
    }
    devices = {"requests": [{"name": "gpus", "exactly": exactly}]}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name},
        "spec": {"spec": {"devices": devices}},
    }


def point(tp: int, tenths: int, claim: str, **more: str) -> dict[str, str]:
    """Return one point."""
    return {
        "name": f"tp{tp}-s{tenths}",
        "tp": str(tp),
        "share": f"{tenths / 10}",
        "neighbours": "idle",
        "claim": claim,
        "cpu": "4",
        "host-memory": "8Gi",
        "resume": "",
        **more,
    }


def workflow(
    name: str,
    namespace: str,
    points: Sequence[Mapping[str, str]],
    claims: Mapping[str, Sequence[str]],
    **arguments: str,
) -> Object:
    """Return a Workflow.

    Args:
        name: its name.
        namespace: its namespace.
        points: what is measured.
        claims: the GPUs of every claim template that the points name.
        arguments: other values than the usual ones; `_` stands for `-`.
    """
    values = {
        "image": IMAGE,
        "model": "Qwen/Qwen3-8B",
        "revision": "",
        "llm": "generator",
        "product": PRODUCT,
        "memory": str(80 << 30),
        "sharing": "dra-exclusive",
        "max-num-seqs": "256",
        "max-model-len": "",
        "budget": "1800s",
        "deadline": "3600",
        "trace-digest": "sha256:" + "cd" * 32,
        "pool": PRODUCT,
        "calls": "H4sIAAAAAAAC/6tWKkktLlGyUlAqS8wpTVWqBQAkrOd3EwAAAA==",
        "claims": json.dumps([{"name": key, "manifest": json.dumps(claim(key, gpus))} for key, gpus in claims.items()]),
        "points": json.dumps(list(points)),
        **{key.replace("_", "-"): value for key, value in arguments.items()},
    }
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/part-of": "scepsy",
                "app.kubernetes.io/component": "profiling",
                "scepsy.dev/sweep": "0123456789",
            },
            "annotations": {"scepsy.dev/request": json.dumps({"model": values["model"], "llm": values["llm"]})},
        },
        "spec": {
            "workflowTemplateRef": {"name": "scepsy-profile"},
            "arguments": {"parameters": [{"name": key, "value": value} for key, value in values.items()]},
        },
    }
