"""Rows and columns of a file's position embedding, which its shape does not tell: 36 positions are 6x6, 4x9 or 9x4.

In this order: the positions themselves, where they are the fixed sine-cosine table of pretraining; what the converter
wrote into the file; the arguments of the run that wrote it; a square. Anything else is refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import isqrt, prod
from typing import Any

import torch

from pretrain.common.errors import UserError
from pretrain.models.pos_embed import sincos_pos_embed
from pretrain.models.video.positions import ClipGrid

__all__ = ["GRID_KEY", "Grid", "file_clip_grid", "file_grid", "grid_text", "square_grid"]

Grid = tuple[int, int]
"""Rows and columns."""

GRID_KEY = "pos_embed_grid"
"""Entry of a converted file that holds its grid as text, such as "4x9"."""

TABLE_TOLERANCE = 1e-2
"""Largest deviation from a sine-cosine table: above bfloat16's rounding, far below another grid's table."""


def file_grid(
    pos_embed: torch.Tensor,
    patch_size: tuple[int, ...],
    notes: Mapping[str, Any],
    may_have_slot: bool,
) -> tuple[Grid, bool]:
    """The grid of a position embedding, and whether a class token's slot comes before it.

    Args:
        pos_embed: `(1, positions, C)`.
        patch_size: of the file's trunk; its product is the size of a patch in pixels.
        notes: what else the file holds: `args` of its run as a mapping, and the converter's :data:`GRID_KEY`.
        may_have_slot: there may be a class token's slot.

    Raises:
        UserError: nothing tells the grid, and the number of positions is no square.
    """
    positions = pos_embed.shape[1]
    slots = (False, True) if may_have_slot else (False,)
    for slot in slots:
        if grid := _grid_of_table(pos_embed[:, int(slot) :]):
            return grid, slot
    _check_note(notes.get(GRID_KEY), [positions - slot for slot in slots])
    for known in _noted_grids(notes, prod(patch_size)):
        for slot in slots:
            if prod(known) == positions - slot:
                return known, slot
    return square_grid(positions, may_have_slot)


def square_grid(positions: int, may_have_slot: bool = True) -> tuple[Grid, bool]:
    """The square grid with so many positions, and whether a class token's slot comes before it.

    Raises:
        UserError: `positions` is neither a square number nor, where there may be a slot, one more.
    """
    for slot in (False, True) if may_have_slot else (False,):
        side = isqrt(positions - slot)
        if side and side**2 == positions - slot:
            return (side, side), slot
    slot_text = ", with or without a class token" if may_have_slot else ""
    raise UserError(
        f"A position embedding of {positions} positions is not a square grid{slot_text}, and the file does not say "
        f'which grid it is; add it to the file as {GRID_KEY}="ROWSxCOLUMNS" beside its tensors.'
    )


def file_clip_grid(positions: int, patch_size: Sequence[int], tubelet_size: int, notes: Mapping[str, Any]) -> ClipGrid:
    """Time slots, rows and columns of a video file's positions, from what it notes.

    Args:
        patch_size, tubelet_size: of the file's trunk.
        notes: as for :func:`file_grid`; a converter's grid is written like "8x14x14".

    Raises:
        UserError: nothing tells the grid.
    """
    note = str(notes.get(GRID_KEY, ""))
    sides = [int(side) for side in note.split("x") if side.isdecimal()]
    if len(sides) == 3 and prod(sides) == positions:
        return sides[0], sides[1], sides[2]
    if note:
        raise UserError(f"{GRID_KEY}={note!r} is not a grid of {positions} positions; it must be SLOTSxROWSxCOLUMNS.")
    args = notes.get("args", {})
    size, num_frames = args.get("input_size"), args.get("num_frames")
    if isinstance(size, list | tuple) and len(size) == 2 and isinstance(num_frames, int):
        stride = prod(patch_size)
        grid = (num_frames // tubelet_size, size[0] // stride, size[1] // stride)
        if prod(grid) == positions:
            return grid
    raise UserError(
        f"The file does not say which slots, rows and columns its {positions} positions are; add "
        f'{GRID_KEY}="SLOTSxROWSxCOLUMNS" beside its tensors.'
    )


def grid_text(grid: Sequence[int]) -> str:
    """A grid as it is written and read, such as "4x9"."""
    return "x".join(map(str, grid))


def _check_note(note: str | None, counts: Sequence[int]) -> None:
    """Raises UserError for a converter's note, if any, that is not a grid of one of these numbers of positions."""
    rows, _, columns = (note or "").partition("x")
    if note and not (rows.isdecimal() and columns.isdecimal() and int(rows) * int(columns) in counts):
        raise UserError(
            f"{GRID_KEY}={note!r} is not a grid of {' or '.join(map(str, counts))} positions; it must be ROWSxCOLUMNS."
        )


def _noted_grids(notes: Mapping[str, Any], stride: int) -> Iterator[Grid]:
    """Grids that a file's own notes speak of."""
    rows, _, columns = str(notes.get(GRID_KEY, "")).partition("x")
    if rows.isdecimal() and columns.isdecimal():
        yield int(rows), int(columns)
    size = notes.get("args", {}).get("input_size")
    if isinstance(size, int):  # as the published pretraining code has it
        size = (size, size)
    if isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(side, int) for side in size):
        yield size[0] // stride, size[1] // stride


def _grid_of_table(table: torch.Tensor) -> Grid | None:
    """The grid whose sine-cosine table `(1, positions, C)` is; None if it is none."""
    _, positions, channels = table.shape
    if channels % 4 or not positions:
        return None
    origin = sincos_pos_embed(channels, (1, 1))  # of every grid: sines are 0 and cosines 1
    if (table[:, :1].float() - origin).abs().max() > TABLE_TOLERANCE:
        return None
    for rows in range(1, positions + 1):
        if positions % rows == 0:
            expected = sincos_pos_embed(channels, (rows, positions // rows))
            if (table.float() - expected).abs().max() <= TABLE_TOLERANCE:
                return rows, positions // rows
    return None
