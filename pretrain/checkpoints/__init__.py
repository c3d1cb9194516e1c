"""Which kind of checkpoint a file is, and conversions between kinds."""
