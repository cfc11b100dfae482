"""Schema registry: client, subjects, schemas that are fetched."""
