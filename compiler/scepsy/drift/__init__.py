"""Finds drift: compares the committed Plan with traffic, the cluster, live objects and profiles."""
