"""Decisions of the callback services."""
