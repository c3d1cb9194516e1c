"""Which local file is meant by the name of weights."""

from collections.abc import Callable

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

    Raises:
        UserError: a file cannot be fetched, or is not what its name promises.
    """
    for resolver in _RESOLVERS:
        name = resolver(name)
    return name
