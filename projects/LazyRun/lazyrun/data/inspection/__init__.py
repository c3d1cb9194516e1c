"""A look at a data set before training: every image is opened once and remembered, everything odd is listed."""
