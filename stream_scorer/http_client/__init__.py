"""HTTP client with a deadline for the whole exchange, bounded answers and redacted errors."""
