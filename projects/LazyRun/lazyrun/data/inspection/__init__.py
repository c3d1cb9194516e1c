"""A look at a data set before training: every image is opened once and remembered, everything odd is listed."""

WORKERS = 8
"""Threads that open images; reading and decoding leave Python's lock."""
