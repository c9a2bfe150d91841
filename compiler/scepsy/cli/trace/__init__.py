"""`scepsy trace …`."""
