"""`train.layer_decay`: a config's layer-wise learning rates at another rate, and at the depth that the model has."""

import logging
import math
from collections.abc import Callable, Iterable
from functools import partial

from pretrain.common.errors import UserError

__all__ = ["layer_decay_function", "layers_of"]

logger = logging.getLogger(__name__)

DEEPER_THAN_ANY = 999
"""Layers of a model that is deeper than all; 2 to this power is still a number."""


def layer_decay_function(factor: Callable[..., float], rate: float, names: Iterable[str]) -> Callable[[str], float]:
    """The function of a config's layer-wise learning rates, at `rate` and for a model's own number of layers.

    Args:
        factor: from a parameter's name, `lr_decay_rate` and `num_layers` to
            `lr_decay_rate ** (num_layers + 1 - layer)`, as detectron2's `get_vit_lr_decay_rate`.
        rate: factor from each layer to the one below.
        names: of all parameters of the model.

    Raises:
        UserError: the function finds no layers in the model.
    """
    num_layers = layers_of(factor, names)
    logger.info(f"Layer-wise decay, depth {num_layers}: learning rates down to x{rate ** (num_layers + 1):.3g}.")
    return partial(factor, lr_decay_rate=rate, num_layers=num_layers)


def layers_of(factor: Callable[..., float], names: Iterable[str]) -> int:
    """How many layers such a function tells apart in a model, beside those below and above all.

    The exponents of a power of two are the layers, so that no function needs to know the names of another's model.

    Raises:
        UserError: there are none, or the function is of another form.
    """
    layers = []
    for name in names:
        layer = DEEPER_THAN_ANY + 1 - math.log2(factor(name, lr_decay_rate=2.0, num_layers=DEEPER_THAN_ANY))
        if not layer.is_integer():
            raise UserError(
                f"train.layer_decay: the learning rate of {name} by optimizer.params.lr_factor_func is no power of "
                "the rate."
            )
        layers.append(int(layer))
    num_layers = max((layer for layer in layers if layer <= DEEPER_THAN_ANY), default=0)
    if num_layers < 1:
        raise UserError(
            "train.layer_decay: optimizer.params.lr_factor_func of this config finds no layers in the model; is it "
            "meant for another backbone?"
        )
    return num_layers
