"""Operator's desk: reads records for an operator, and writes decisions."""
