"""Images that cannot be used: left out, named and counted, up to a share of the data set."""

import logging
import math

from omegaconf import DictConfig

from pretrain.common.errors import UserError

__all__ = ["CORRUPT", "MAX_CORRUPT", "CorruptImageError", "CorruptImages", "share_of_corrupt"]

logger = logging.getLogger(__name__)

MAX_CORRUPT = 0.01
"""Share of a data set's images that may be left out, unless `data.max_corrupt` says otherwise."""

CORRUPT = "corrupt"
"""Key of a sample that names the files that could not be used, as a list of pairs of file and reason."""


class CorruptImageError(UserError):
    """An image file that cannot be decoded, or has another size than annotated."""


class CorruptImages:
    """Counts images that cannot be used, names each once, and says when there are too many.

    Args:
        total: images of the data set.
        max_share: share of them that may be left out.
    """

    def __init__(self, total: int, max_share: float):
        self.total, self.max_share = total, max_share
        self.files: dict[str, str] = {}

    def add(self, found: list[tuple[str, str]]) -> None:
        """Takes note of pairs of file and reason."""
        for file, reason in found:
            if file not in self.files:
                self.files[file] = reason
                logger.warning(f"{reason.rstrip('.')}: it is left out ({len(self.files)} of {self.total} images).")

    def check(self) -> None:
        """Raises UserError if more than the allowed share was left out."""
        if len(self.files) > self.max_share * self.total:
            raise UserError(
                f"{len(self.files)} of {self.total} images cannot be used, more than data.max_corrupt={self.max_share} "
                f"allows, for example: {next(iter(self.files.values()))}"
            )


def share_of_corrupt(cfg: DictConfig) -> float:
    """`data.max_corrupt` of a config.

    Raises:
        UserError: it is no share.
    """
    share = cfg.get("data", {}).get("max_corrupt", MAX_CORRUPT)
    if isinstance(share, bool) or not isinstance(share, int | float) or not math.isfinite(share) or not 0 <= share <= 1:
        raise UserError(f"data.max_corrupt={share} must be a share from 0 to 1, such as {MAX_CORRUPT}.")
    return share
