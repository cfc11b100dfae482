"""Consumers: group consumer, start offsets, retry topics, flow control."""
