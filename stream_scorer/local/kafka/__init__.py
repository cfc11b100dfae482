"""Local Apache Kafka, from pip packages alone."""
