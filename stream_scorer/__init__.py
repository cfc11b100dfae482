"""Scores contacts from Kafka through Genesys Cloud Predictive Engagement, exactly once."""

__version__ = "0.1.0"
