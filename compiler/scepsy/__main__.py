"""`python -m scepsy`."""

from scepsy.cli import main

main()
