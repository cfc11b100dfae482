"""What the local HTTP servers share."""
