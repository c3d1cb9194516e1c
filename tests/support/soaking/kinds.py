"""All kinds of cases, in the order in which they take turns."""

from soaking.annotations import annotations
from soaking.cases import Kind
from soaking.checkpoints import checkpoints
from soaking.images import images
from soaking.kills import full_disk, kills
from soaking.nonsense import flags, overrides
from soaking.ranks import ranks

__all__ = ["KINDS"]

KINDS: dict[str, Kind] = {
    "kills": kills,
    "ranks": ranks,
    "full-disk": full_disk,
    "checkpoints": checkpoints,
    "annotations": annotations,
    "images": images,
    "flags": flags,
    "overrides": overrides,
}
