"""Runs any model of a LazyConfig file: trains, resumes, evaluates, predicts, exports, reports.

from lazyrun import load_model, train

model = load_model(train("config.py", train__output_dir="output/mine"))
print(model("image.jpg"))
"""

from typing import Any

__all__ = ["load_model", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # not imported with the package: they need PyTorch and detectron2, which exported files do not
        from lazyrun import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
