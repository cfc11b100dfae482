"""Redaction of foreign text."""
