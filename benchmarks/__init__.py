"""Measurements of the compiler; `make bench` runs all of them, `python -m benchmarks NAME` some."""
