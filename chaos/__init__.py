"""Faults of every kind, done to real processes while they fit: `make chaos`."""
