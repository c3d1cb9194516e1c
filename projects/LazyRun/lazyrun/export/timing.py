"""CPU time of a model and of its exported file on the same images."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["Times"]


class Times:
    """CPU time of the calling thread for each image, which other programs on the machine change little."""

    def __init__(self) -> None:
        self.seconds: tuple[list[float], list[float]] = ([], [])

    def run(self, model: Callable[[Any], Any], exported: Callable[[Any], Any], pixels: Any) -> tuple[Any, Any]:
        """What the model and its file find in an image; both are timed."""
        return _timed(model, pixels, self.seconds[0]), _timed(exported, pixels, self.seconds[1])

    def __str__(self) -> str:
        """The medians, as the end of a sentence; empty without images."""
        if not self.seconds[0]:
            return ""
        eager, exported = (1000 * float(np.median(seconds)) for seconds in self.seconds)
        digits = 0 if min(eager, exported) >= 10 else 1
        return f"; an image takes {eager:.{digits}f} ms in PyTorch, {exported:.{digits}f} ms in ONNX Runtime"


def _timed(model: Callable[[Any], Any], pixels: Any, seconds: list[float]) -> Any:
    start = time.thread_time()
    found = model(pixels)
    seconds.append(time.thread_time() - start)
    return found
