"""Which local file is meant by the name of weights."""

from collections.abc import Callable

from detectron2.utils.file_io import PathManager
from iopath.common.file_io import HTTPURLHandler

from pretrain.common.remote_files import refuse_unknown_address

__all__ = ["WeightResolver", "local_weights", "register_weight_names"]

WeightResolver = Callable[[str], str]
"""Gives the local file of a name that it knows, fetching it where needed, and any other name as it is."""

_RESOLVERS: list[WeightResolver] = []


def register_weight_names(resolver: WeightResolver) -> WeightResolver:
    """Has :func:`local_weights` ask a resolver, for published weights and addresses."""
    _RESOLVERS.append(resolver)
    return resolver


def local_weights(name: str) -> str:
    """The local file of a checkpoint's name, published name or address.

    Addresses of the kinds that detectron2's `PathManager` has a handler for, such as `detectron2://`, are left to it.

    Raises:
        UserError: a file cannot be fetched, its address is of no known kind, or it is not what its name promises.
    """
    if _has_handler(name):
        return name
    for resolver in _RESOLVERS:
        name = resolver(name)
    refuse_unknown_address(name)
    return name


def _has_handler(name: str) -> bool:
    """Whether detectron2 knows where to look, by another handler than that of web pages, which asks FTP servers too."""
    handlers = PathManager._path_handlers.items()
    return any(name.startswith(prefix) for prefix, handler in handlers if not isinstance(handler, HTTPURLHandler))
