"""Modules that were here before :mod:`lazyrun` took them over; old imports and the dotted names in old runs'
`config.yaml` files still find them."""

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["redirect_moved_modules"]

MOVED = {
    "convmae_det.analysis": ["lazyrun.evaluation.analysis", "lazyrun.evaluation.results", "lazyrun.evaluation.truth"],
    "convmae_det.categories": ["lazyrun.data.categories"],
    "convmae_det.charts": ["lazyrun.viz.charts"],
    "convmae_det.checkpoint": ["lazyrun.engine.checkpoint", "lazyrun.modeling.weights"],
    "convmae_det.chunked_attention": ["convmae_det.attention.chunked"],
    "convmae_det.config": ["lazyrun.config.loading", "lazyrun.modeling.build"],
    "convmae_det.curves": ["lazyrun.viz.curves"],
    "convmae_det.custom_data": ["lazyrun.config.custom_data"],
    "convmae_det.data": ["lazyrun.data.loader"],
    "convmae_det.dataset_check": ["lazyrun.data.coco_check"],
    "convmae_det.engine": [
        "lazyrun.engine.run",
        "lazyrun.engine.train",
        "lazyrun.engine.evaluate",
        "lazyrun.engine.compile",
    ],
    "convmae_det.evaluation": ["lazyrun.evaluation.coco"],
    "convmae_det.export": ["lazyrun.inference.export"],
    "convmae_det.folded_attention": ["convmae_det.attention.folded"],
    "convmae_det.hooks": ["lazyrun.engine.hooks"],
    "convmae_det.images": ["lazyrun.data.images"],
    "convmae_det.launch": ["lazyrun.engine.launch"],
    "convmae_det.mapper": ["lazyrun.data.mapper"],
    "convmae_det.norms": ["lazyrun.modeling.norms"],
    "convmae_det.optim": ["lazyrun.engine.optim"],
    "convmae_det.prediction_files": ["lazyrun.inference.writer", "lazyrun.inference.inputs"],
    "convmae_det.predictor": ["lazyrun.inference.predictor"],
    "convmae_det.rcnn": ["lazyrun.modeling.rcnn"],
    "convmae_det.recipe": ["lazyrun.config.lr_and_iterations"],
    "convmae_det.report": ["lazyrun.viz.report"],
    "convmae_det.samples": ["lazyrun.data.samples"],
    "convmae_det.schedule": ["lazyrun.config.schedule"],
    "convmae_det.synthetic": ["lazyrun.benchmarks.synthetic"],
    "convmae_det.table_attention": ["convmae_det.attention.table"],
    "convmae_det.task": ["lazyrun.config.task", "lazyrun.detection"],
    "convmae_det.trainer": ["lazyrun.engine.trainer"],
    "convmae_det.tta": ["lazyrun.modeling.tta"],
    "convmae_det.visualization": ["lazyrun.viz.instances"],
    "convmae_det.writers": ["lazyrun.engine.metric_writers", "lazyrun.config.checks"],
}
"""Old name to the modules that hold its contents now."""


class _Redirect:
    """Finds the old names and gives a module each that looks up its contents in the new ones."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, _Redirect) if name in MOVED else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        return None

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        new = MOVED[module.__name__]

        def look_up(attribute: str) -> Any:
            for name in new:
                found = importlib.import_module(name)
                if hasattr(found, attribute):
                    return getattr(found, attribute)
            raise AttributeError(f"{module.__name__} is now {' and '.join(new)}, which has no {attribute!r}")

        module.__doc__ = f"Moved to {' and '.join(new)}."
        module.__dict__["__getattr__"] = look_up


def redirect_moved_modules() -> None:
    """Makes the old names importable, once."""
    if _Redirect not in sys.meta_path:
        sys.meta_path.append(_Redirect)
