"""`scepsy profile …`."""
