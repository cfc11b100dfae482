"""Files of contacts: CSV and JSON Lines."""
