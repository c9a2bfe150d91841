"""Profiles measured on the cluster: calls and shapes → Argo Workflows, and their results → Profile documents."""
