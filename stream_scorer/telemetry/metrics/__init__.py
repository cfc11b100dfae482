"""Instruments of the services."""
