"""The precisions of autocast by their names on the command line."""

__all__ = ["PRECISIONS"]

PRECISIONS = ("bf16", "fp16", "off")
