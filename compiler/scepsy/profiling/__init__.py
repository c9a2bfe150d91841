"""Profiles: measured against a server, estimated from tables of kernels, or imported from other tools."""
