"""Trained models as functions of images, as result files, and as exported files."""
