"""`python -m pretrain` with networks of a few channels: `small_pretraining.py OPTIONS`."""

import sys

from pretrain.__main__ import main
from pretrain.models import MODELS

__all__ = ["SMALL"]

SIZES = dict(embed_dim=(8, 16, 24), depth=(1, 1, 1), decoder_embed_dim=16, decoder_depth=2)
SMALL = {
    name: MODELS[name] | SIZES
    for name in (f"{family}_convvit_tiny_patch16" for family in ("convmae", "fastconvmae", "convmaev2"))
}
"""Models in place of those of the same name."""

if __name__ == "__main__":
    MODELS.update(SMALL)
    main(sys.argv[1:])
