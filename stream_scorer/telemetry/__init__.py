"""Logs and metrics: how a service is seen from outside. Traces are in `stream_scorer.telemetry.tracing`."""
