"""Scoring without Kafka: what stands behind the public names of the package."""
