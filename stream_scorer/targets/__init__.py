"""Targets of callbacks: the adapters behind `stream_scorer.callbacks.ports.Target`."""
