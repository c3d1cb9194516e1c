"""What decodes images, by its name on the command line."""

__all__ = ["DECODERS", "DEFAULT_DECODER", "EARLIER_DECODER"]

DECODERS = ("torchvision", "pil")
DEFAULT_DECODER = "torchvision"
EARLIER_DECODER = "pil"
"""That of pretraining and classification runs whose checkpoints do not name one."""
