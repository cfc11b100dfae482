"""Offsets, outcomes and commits: what makes a result appear once."""
