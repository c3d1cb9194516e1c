"""Whole models as ONNX files: fixed-shape forms of detectors, the files with their metadata, and their comparison."""
