"""Scepsy compiles workflow specs into Kubernetes manifests that share GPUs among LLMs."""

__version__ = "0.1.0"
