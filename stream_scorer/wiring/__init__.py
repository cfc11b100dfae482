"""Composition roots: settings in, a running service out."""
