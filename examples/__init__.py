"""The examples that ship with Scepsy, as package data."""
