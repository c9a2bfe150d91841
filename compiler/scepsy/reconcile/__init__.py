"""Reconciling: acting on drift by compiling again, pushing or proposing the result, and watching."""
