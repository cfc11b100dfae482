"""Telemetry of the services: logs and metrics here, traces in `stream_scorer.telemetry.tracing`."""
