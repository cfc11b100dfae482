"""Metric instruments of the services."""
