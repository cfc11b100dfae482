"""Composition roots: build a service from its settings."""
