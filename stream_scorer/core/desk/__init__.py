"""Decisions of the operator's desk: which records are selected, and what is decided about them."""
