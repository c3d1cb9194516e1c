"""Memory and work of a training before the run, from tensors that have shapes, devices and types but no values."""
