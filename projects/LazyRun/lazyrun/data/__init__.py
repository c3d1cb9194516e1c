"""Data sets and loaders: checked before a run, and resumed exactly."""
