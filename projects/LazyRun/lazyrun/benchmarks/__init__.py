"""Time and memory of detectors."""
