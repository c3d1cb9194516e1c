"""Recognises which kind of checkpoint a file is from the names and shapes of its tensors, without guessing.

The sizes of the trunk are read off its tensors, and the trunk of those sizes must have the file's names and shapes.
"""

import argparse
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pretrain.checkpoints.grids import GRID_KEY, Grid, file_clip_grid, file_grid, square_grid
from pretrain.checkpoints.kinds import KINDS, NET_PREFIX, VIDEO, Kind, Part
from pretrain.checkpoints.trunk_sizes import TrunkSizes, trunk_problems
from pretrain.common.errors import UserError
from pretrain.common.files import load_checkpoint, load_metadata
from pretrain.models.video.positions import ClipGrid

__all__ = ["Checkpoint", "recognise", "summarise"]

WRAPPERS = ("module.", "encoder.")
"""Prefixes that training code puts in front of all names."""


@dataclass(frozen=True)
class Checkpoint:
    """A recognised checkpoint.

    Attributes:
        source: the file, or "state dict".
        kind: what it is.
        why: the evidence for the kind, as a sentence.
        sizes: of its trunk; None for detectors with other backbones.
        tensors: by name, without the wrappers' prefixes.
        parts: the part every tensor belongs to.
        original_names: the name of every tensor in the file.
        extras: what else the file holds (optimizer, args …), by name.
        notes: what the file says of itself: the `args` of its run, and the grid of its positions.
    """

    source: str
    kind: Kind
    why: str
    sizes: TrunkSizes | None
    tensors: dict[str, torch.Tensor]
    parts: dict[str, Part]
    original_names: dict[str, str]
    extras: tuple[str, ...]
    notes: Mapping[str, Any]

    @property
    def variant(self) -> str:
        return str(self.sizes or "unknown")

    def has(self, part: Part) -> bool:
        return part in self.parts.values()

    @property
    def may_have_slot(self) -> bool:
        """Whether positions may begin with a class token's."""
        return self.kind.family == "ViT" or self.kind.is_detector or self.has(Part.CLS_TOKEN)

    def grid(self, pos_embed: torch.Tensor) -> tuple[Grid, bool]:
        """Rows and columns of one of the file's position embeddings, and whether a class token's slot comes first.

        Raises:
            UserError: nothing tells the grid.
        """
        try:
            if self.sizes is None:  # another project's detector, whose positions are squares
                return square_grid(pos_embed.shape[1])
            return file_grid(pos_embed, self.sizes.patch_size, self.notes, self.may_have_slot)
        except UserError as e:
            raise UserError(f"{self.source}: {e}") from e

    @property
    def has_grid(self) -> bool:
        """Whether a video file notes its grid."""
        return bool(self.notes.get(GRID_KEY) or self.notes["args"].get("num_frames"))

    def clip_grid(self, pos_embed: torch.Tensor) -> ClipGrid:
        """Time slots, rows and columns of a video file's position embedding.

        Raises:
            UserError: nothing tells the grid.
        """
        assert self.sizes is not None, "video files have a trunk"
        try:
            return file_clip_grid(pos_embed.shape[1], self.sizes.patch_size, self.sizes.tubelet_size, self.notes)
        except UserError as e:
            raise UserError(f"{self.source}: {e}") from e


def recognise(checkpoint: str | os.PathLike | Mapping[str, Any]) -> Checkpoint:
    """Says what a checkpoint is; the tensors of a file stay on disk until they are used.

    Args:
        checkpoint: a file, or what it holds: `{"model": state_dict, ...}`, `{"state_dict": state_dict, ...}`
            (mmsegmentation's) or a state dict alone. `module.` and `encoder.` in front of names are taken off.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the file cannot be read, no kind or more than one fits, or the trunk is not whole.
    """
    path = None if isinstance(checkpoint, Mapping) else checkpoint
    source = "The state dict" if path is None else str(path)
    content = checkpoint if path is None else load_checkpoint(path)
    state, extras = _state_dict(content, source)
    assert isinstance(content, Mapping)
    original_names = _strip_wrappers(state, source)
    tensors = {name: state[original] for name, original in original_names.items()}
    is_video = any(name.endswith("patch_embed1.proj.weight") and t.ndim == 5 for name, t in tensors.items())
    kind = _kind_of(tensors, source, is_video)
    parts = {name: part for name in tensors if (part := kind.part_of(name))}  # all have one
    sizes = None if kind.family == "other" else _read_sizes(kind, tensors, parts, source)
    notes = _notes(content, path)
    why = _evidence(kind, set(parts.values()), notes["args"].get("model"))
    return Checkpoint(source, kind, why, sizes, tensors, parts, original_names, extras, notes)


def _notes(content: Mapping[str, Any], path: str | os.PathLike | None) -> dict[str, Any]:
    args = content.get("args")
    known = args if isinstance(args, Mapping) else vars(args) if isinstance(args, argparse.Namespace) else {}
    grid = content.get(GRID_KEY)
    if path is not None and str(path).endswith(".safetensors"):
        grid = load_metadata(path).get(GRID_KEY)
    return {"args": known, GRID_KEY: grid or ""}


def summarise(names: Iterable[str]) -> str:
    """Names in one line: those that begin alike are counted."""
    groups: Counter[str] = Counter()
    for name in names:
        prefix = NET_PREFIX if name.startswith(NET_PREFIX) else ""
        first, *rest = name.removeprefix(prefix).split(".")
        shared = prefix + (first if not rest or rest[0].isdigit() else f"{first}.{rest[0]}")
        groups[name if shared == name else f"{shared}.*"] += 1
    return ", ".join(f"{group} ({n})" if group.endswith("*") else group for group, n in groups.items())


def _state_dict(content: Any, source: str) -> tuple[Mapping[str, torch.Tensor], tuple[str, ...]]:
    """The tensors of a file, and the names of what else is in it."""
    if not isinstance(content, Mapping):
        raise UserError(f"{source} holds a {type(content).__name__} where a dictionary of tensors was expected.")
    key = next((key for key in ("model", "state_dict") if key in content), None)
    state = content if key is None else content[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        entries = state if isinstance(state, Mapping) and state else content
        seen = [f"{key} ({type(v).__name__})" for key, v in entries.items() if not isinstance(v, torch.Tensor)]
        raise UserError(
            f"{source} has no dictionary of tensors, neither under 'model' or 'state_dict' nor as a whole; "
            f"it holds {', '.join(seen[:8]) or 'nothing'}."
        )
    return state, () if state is content else tuple(str(k) for k in content if k != key)


def _strip_wrappers(names: Iterable[str], source: str) -> dict[str, str]:
    """Names without `module.` and `encoder.`, each with the name it has in the file."""
    original_names: dict[str, str] = {}
    for original in names:
        name = original
        while wrapper := next((w for w in WRAPPERS if name.startswith(w)), None):
            name = name.removeprefix(wrapper)
        if name in original_names:
            raise UserError(f"{source}: {original} and {original_names[name]} are both {name} without their prefix.")
        original_names[name] = original
    return original_names


def _kind_of(names: Collection[str], source: str, is_video: bool) -> Kind:
    """The only kind that all names fit, among those of video or the others."""
    obstacles = {kind: kind.obstacles(names) for kind in KINDS if kind.is_video == is_video}
    fitting = [kind for kind, found in obstacles.items() if not any(found)]
    if len(fitting) == 1:
        return fitting[0]
    seen = f"it holds {summarise(names)}."
    if fitting:
        raise UserError(f"{source} could be any of {', '.join(kind.name for kind in fitting)}: {seen}")
    closest, (unknown, absent) = min(obstacles.items(), key=lambda item: len(item[1][0]) + len(names) * len(item[1][1]))
    hint = ""
    if len(unknown) < len(names):
        against = [f"there is no place for {summarise(unknown)}"] if unknown else []
        against += [f"the file has no {', '.join(part.value for part in absent)}"] if absent else []
        hint = f" The closest is {closest.name}, but {' and '.join(against)}."
    raise UserError(f"{source} is not a known kind of checkpoint: {seen}{hint}")


def _evidence(kind: Kind, present: set[Part], model: str | None) -> str:
    convvit = "patch_embed1-4 and blocks1-3"
    trunks = {"ConvViT": convvit, VIDEO: f"{convvit}, the first embedding 5-D", "ViT": "patch_embed and blocks"}
    trunk = trunks.get(kind.family)
    has = [f"{trunk}{f' under {kind.prefix[:-1]}' if kind.prefix else ''}"] if trunk else []
    has += [part.value for part in kind.parts if part in present and part is not Part.TRUNK]
    lacks = [part.value for part in kind.parts if part not in present]
    return (
        f"it has {'; '.join(has)}"
        + (f", but no {'; no '.join(lacks)}" if lacks else "")
        + (f"; its args name the model {model}" if model else "")
    )


def _read_sizes(kind: Kind, tensors: Mapping[str, torch.Tensor], parts: Mapping[str, Part], source: str) -> TrunkSizes:
    shapes = {
        name.removeprefix(kind.prefix): tuple(tensors[name].shape)
        for name, part in parts.items()
        if part in (Part.TRUNK, Part.POS_EMBED)
    }
    try:
        sizes = TrunkSizes.read(kind.family, shapes)
    except ValueError as e:
        raise UserError(f"{source} looks like {kind.name}, but its sizes cannot be read: {e}.") from e
    if problems := trunk_problems(sizes, shapes):
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(
            f"{source} looks like {kind.name}, {sizes}, but its trunk is incomplete: {'; '.join(problems[:5])}{more}."
        )
    return sizes
