"""Scoring without Kafka: implementation of the package's public names."""
