"""Producers: transactions, dead letters, bulk loading."""
