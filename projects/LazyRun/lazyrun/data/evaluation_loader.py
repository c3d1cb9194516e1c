"""The test loader of a config, without the images that cannot be used."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

from detectron2.config import instantiate
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf

from lazyrun.data.corrupt import CORRUPT, CorruptImageError, CorruptImages, share_of_corrupt
from lazyrun.data.original import WithOriginal

__all__ = ["ReadableBatches", "build_test_loader"]

logger = logging.getLogger(__name__)


def build_test_loader(cfg: DictConfig, evaluator: Any) -> Any:
    """What `dataloader.test` of a config gives, without the images that cannot be used.

    Args:
        cfg: of a run; up to the share `data.max_corrupt` of the images may be left out.
        evaluator: told which images those are, if it has a method `leave_out(image_id)`.
    """
    if "mapper" not in cfg.dataloader.test:
        return instantiate(cfg.dataloader.test)
    mapper = instantiate(cfg.dataloader.test.mapper)
    side = OmegaConf.select(cfg, "test.slice")
    if side:
        mapper = WithOriginal(mapper, mapper.image_format, larger_than=side)
    loader = instantiate(dict(cfg.dataloader.test) | {"mapper": _NamingMapper(mapper)})
    return ReadableBatches(loader, share_of_corrupt(cfg), getattr(evaluator, "leave_out", lambda _: None))


class _NamingMapper:
    """A mapper that gives the names of unusable images in their place.

    Args:
        mapper: from a data set's dict to the model's input.
    """

    def __init__(self, mapper: Callable[[dict], dict | None]):
        self.mapper = mapper

    def __call__(self, sample: dict) -> dict | None:
        try:
            return self.mapper(sample)
        except CorruptImageError as e:
            return {CORRUPT: [(sample["file_name"], str(e))], "image_id": sample.get("image_id")}


class ReadableBatches:
    """The batches of a test loader without the images that cannot be used.

    Args:
        loader: of lists of samples; those of unusable images name them under :data:`lazyrun.data.corrupt.CORRUPT`.
        max_share: share of the images that may be left out.
        leave_out: called with the `image_id` of every image left out.
    """

    def __init__(self, loader: Any, max_share: float, leave_out: Callable[[Any], None]):
        self.loader, self.max_share, self.leave_out = loader, max_share, leave_out

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[dict]]:
        """The batches.

        Raises:
            UserError: on all processes alike after the last batch, if too many images were left out on all together.
        """
        corrupt = CorruptImages(len(self.loader.dataset), self.max_share)
        for batch in self.loader:
            for sample in batch:
                if CORRUPT in sample:
                    corrupt.add(sample[CORRUPT])
                    self.leave_out(sample["image_id"])
            kept = [sample for sample in batch if CORRUPT not in sample]
            if kept:
                yield kept
        for files in comm.all_gather(corrupt.files):
            corrupt.files |= files
        corrupt.check()
        if corrupt.files:
            logger.warning(f"{len(corrupt.files)} of {corrupt.total} images are not evaluated.")
