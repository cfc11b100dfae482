"""Traces: spans by OpenTelemetry's conventions, exported by OTLP. Imported only where traces are configured."""
