"""Comparison of inputs with outputs and audit."""
