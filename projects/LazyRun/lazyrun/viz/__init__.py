"""Pictures, curves and reports."""
