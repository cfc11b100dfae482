"""Base of the local HTTP servers."""
