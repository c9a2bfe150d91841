"""`scepsy cluster …`."""
