"""Plan → Kubernetes objects: serving pods on shared GPUs, and one OpenAI endpoint in front of them."""

from scepsy.manifests.engine import BadPodTemplate
from scepsy.manifests.gateway import (
    COUNTS_PATH,
    EXECUTION_HEADER,
    MODEL_HEADER,
    WORKFLOW_HEADER,
    Backend,
    BodyTooLarge,
    Server,
    gateway_config,
)
from scepsy.manifests.plan_checks import UnsafePlan, check
from scepsy.manifests.render import render
from scepsy.manifests.template import Templates

__all__ = [
    "COUNTS_PATH",
    "EXECUTION_HEADER",
    "MODEL_HEADER",
    "WORKFLOW_HEADER",
    "Backend",
    "BadPodTemplate",
    "BodyTooLarge",
    "Server",
    "Templates",
    "UnsafePlan",
    "check",
    "gateway_config",
    "render",
]
