"""Local schema registry."""
