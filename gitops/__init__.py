"""What a platform team installs, as package data: `scepsy init --gitops` copies it."""
