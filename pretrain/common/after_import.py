"""A module imported right after another one, whenever that is, so that nobody waits for either before it is needed."""

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["import_after"]


def import_after(first: str, then: str) -> None:
    """Imports the module `then` once `first` is imported: now, if that has happened, or as the last step of it."""
    if first in sys.modules:
        importlib.import_module(then)
    else:
        sys.meta_path.insert(0, _Follower(first, then))


class _Follower:
    """Finds the module `first` as Python would without it, and lets `then` follow."""

    def __init__(self, first: str, then: str):
        self.first, self.then = first, then

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.first:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((found for finder in others if (found := finder.find_spec(name, path, target))), None)
        if spec is not None and spec.loader is not None:
            self._extend(spec.loader)
        return spec

    def _extend(self, loader: object) -> None:
        execute = loader.exec_module  # type: ignore[attr-defined]

        def execute_both(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)  # only now: an import that fails may be tried again
            importlib.import_module(self.then)

        loader.exec_module = execute_both  # type: ignore[attr-defined]
