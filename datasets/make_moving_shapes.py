#!/usr/bin/env python3
"""Draw videos of moving shapes whose class is how they move, so that single frames tell nothing.

Six classes: left, right, up, down, clockwise, anticlockwise. Each scene (one to three shapes of any colour on a varied
background, or with --plain two to four light ones on a dark background, which small models learn in a minute) is drawn
once for each class and begins with the same frame in all of them. Shapes that leave the picture come back at the other
side. Videos are compressed without loss, as coding errors would tell the motion. The same seed
draws the same videos.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.temporary import replacing_folder
from pretrain.data.video.files import write_video

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
TURNS = {"clockwise": 1, "anticlockwise": -1}
CLASSES = (*DIRECTIONS, *TURNS)
SLOW, FAST = (0.02, 0.05), (0.08, 0.12)  # of the picture's side, for a frame
# Degrees for a frame; less than half of what turns any shape into itself.
TURN_SLOW, TURN_FAST = (4.0, 9.0), (15.0, 25.0)
DARK, LIGHT = 40, 220
OUTLINES = {
    "triangle": ((1, 0), (-0.5, 0.87), (-0.5, -0.87)),
    "bar": ((1, 0.3), (-1, 0.3), (-1, -0.3), (1, -0.3)),
    "corner": ((1, 1), (-0.7, 1), (-0.7, -0.8), (-0.1, -0.8), (-0.1, 0.4), (1, 0.4)),
    "arrow": ((1.1, 0), (0.1, 0.9), (0.1, 0.35), (-1, 0.35), (-1, -0.35), (0.1, -0.35), (0.1, -0.9)),
}
SMOOTH = 3  # shapes are drawn this much larger


class Scene:
    """Shapes on a background, at the first frame."""

    def __init__(self, rng: np.random.Generator, side: int, plain: bool):
        self.side, self.plain = side, plain
        self.background = np.full((side, side, 3), DARK) if plain else _background(rng, side)
        self.shapes = [self._shape(rng) for _ in range(rng.integers(2, 5) if plain else rng.integers(1, 4))]

    def _shape(self, rng: np.random.Generator) -> dict:
        speeds, turns = (FAST, TURN_FAST) if self.plain else (SLOW, TURN_SLOW)
        return {
            "outline": np.array(OUTLINES[str(rng.choice(list(OUTLINES)))]) * self.side * rng.uniform(0.12, 0.2),
            "place": rng.uniform(0, self.side, 2),
            "angle": rng.uniform(0, 360),
            "colour": np.full(3, LIGHT) if self.plain else rng.integers(0, 256, 3),
            "speed": self.side * rng.uniform(*speeds),
            "turn": rng.uniform(*turns),
        }

    def video(self, motion: str, frames: int) -> np.ndarray:
        """uint8 `(frames, side, side, 3)` of the scene moving in one of the ways."""
        return np.stack([self._frame(motion, time) for time in range(frames)])

    def _frame(self, motion: str, time: int) -> np.ndarray:
        frame = self.background.copy()
        for shape in self.shapes:
            direction = np.array(DIRECTIONS.get(motion, (0, 0)))
            place = (shape["place"] + direction * shape["speed"] * time) % self.side
            angle = math.radians(shape["angle"] + TURNS.get(motion, 0) * shape["turn"] * time)
            cover = self._cover(shape["outline"], place, angle)[..., None]
            frame = frame * (1 - cover) + shape["colour"] * cover
        return frame.round().astype(np.uint8)

    def _cover(self, outline: np.ndarray, place: np.ndarray, angle: float) -> np.ndarray:
        """How much of each pixel a shape covers, 0 to 1; what leaves at one side comes in at the other."""
        rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        corners = outline @ rotation + place
        mask = Image.new("L", (self.side * SMOOTH,) * 2)
        draw = ImageDraw.Draw(mask)
        for shift in np.ndindex(3, 3):
            points = (corners + (np.array(shift) - 1) * self.side) * SMOOTH
            draw.polygon([(float(x), float(y)) for x, y in points], fill=255)
        return np.asarray(mask.resize((self.side,) * 2, Image.Resampling.BOX)) / 255


def _background(rng: np.random.Generator, side: int) -> np.ndarray:
    """A gradient between two colours with blots and grain."""
    start, end = rng.uniform(0, 255, (2, 3))
    y, x = np.mgrid[:side, :side] / side
    angle = rng.uniform(0, 2 * math.pi)
    along = (x * math.cos(angle) + y * math.sin(angle))[..., None]
    picture = start + (end - start) * (along - along.min()) / np.ptp(along)
    blots = Image.fromarray(rng.normal(128, 25, (6, 6)).clip(0, 255).astype(np.uint8))
    picture += np.asarray(blots.resize((side, side), Image.Resampling.BICUBIC))[..., None].astype(float) - 128
    return (picture + rng.normal(0, 4, picture.shape)).clip(0, 255)


def write_split(folder: Path, scenes: int, seed: int, side: int, frames: int, plain: bool) -> None:
    """Writes `folder/CLASS/SCENE.mp4`."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for number in range(scenes):
        scene = Scene(np.random.default_rng([seed, number]), side, plain)
        for name in CLASSES:
            write_video(scene.video(name, frames), folder / name / f"{number:04d}.mp4", quality=0)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder to write; must not exist yet")
    parser.add_argument("--train", type=int, default=100, help="training scenes of six videos (default: %(default)s)")
    parser.add_argument("--val", type=int, default=30, help="validation scenes (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="side in pixels, even (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=20, help="of a video (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="validation scenes use seed + 1 (default: %(default)s)")
    parser.add_argument("--plain", action="store_true", help="light shapes that move fast, on a dark background")
    add_traceback_option(parser)
    args = parser.parse_args(argv)
    for name in ("train", "val", "size", "frames"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(args, name)}")
    if args.size % 2 or args.seed < 0:
        parser.error(f"--size must be even and --seed at least 0, got {args.size} and {args.seed}")
    if args.output.exists():
        parser.error(f"{args.output} exists already; remove it or name another folder")
    with exit_on_user_error(), replacing_folder(args.output) as folder:
        for split, scenes, seed in (("train", args.train, args.seed), ("val", args.val, args.seed + 1)):
            write_split(folder / split, scenes, seed, args.size, args.frames, args.plain)


if __name__ == "__main__":
    main()
