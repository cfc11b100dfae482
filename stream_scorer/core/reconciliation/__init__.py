"""Reconciliation: comparison of inputs with outputs and audit."""
