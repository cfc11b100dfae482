"""Callback service (service 2): planner and deliverer. Every score at or over the threshold causes one callback."""
