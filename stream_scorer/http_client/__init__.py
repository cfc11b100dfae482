"""Requests over HTTP with a deadline for the whole exchange, bounded answers and errors in our words."""
