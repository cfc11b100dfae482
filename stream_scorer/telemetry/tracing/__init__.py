"""Traces: spans by OpenTelemetry's conventions, sent by OTLP. Nothing here is imported where nobody asks for traces."""
