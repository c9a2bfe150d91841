"""Profiles measured on the cluster: calls and shapes → Argo Workflows, and what became of them → Profile documents."""
