"""Reader of contact files: CSV and JSON Lines."""
