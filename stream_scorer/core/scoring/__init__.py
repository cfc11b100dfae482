"""Decisions about contacts, requests and responses."""
