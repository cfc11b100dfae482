"""Schema registry: client, subjects, and the fetching of writers' schemas."""
