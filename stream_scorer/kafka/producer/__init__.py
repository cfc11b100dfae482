"""Writing: transactions, dead letters, bulk loading."""
