"""Redaction: what must not be shown is taken out of foreign text."""
