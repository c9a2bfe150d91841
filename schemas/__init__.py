"""The schemas that ship with Scepsy, as package data."""
