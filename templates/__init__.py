"""The templates that ship with Scepsy, as package data."""
