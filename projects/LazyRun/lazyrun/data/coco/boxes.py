"""What the boxes of a file look like as a whole: pixels as they should be, relative coordinates, or corners."""

from lazyrun.data.coco.findings import Findings

__all__ = ["BOX", "BoxStatistics"]

BOX = "bbox is [x, y, width, height] in pixels."

CORNERS = (
    "bbox is [x, y, width, height] in pixels, not two corners, but these look like corners: in all of them the third "
    "number is above the first and the fourth above the second."
)

OVERHANG = 0.01
"""How far a box may reach beyond its image, in widths or heights of it: rounding makes boxes of sound data overhang by
a pixel or two."""


class BoxStatistics:
    """Gathers boxes that have an area, and says in the end what is doubtful about them."""

    def __init__(self) -> None:
        self.count = 0
        self.ordered = True
        self.relative: list[tuple[str, str]] = []
        self.outside: list[tuple[str, str]] = []
        self.apart: list[tuple[str, str]] = []

    def add(
        self, annotation: dict, size: tuple[int, int] | None, bounds: tuple[float, ...] | None, file: str = ""
    ) -> None:
        """Notes a box.

        Args:
            annotation: with a `bbox` of four numbers.
            size: width and height of its image, where they are known.
            bounds: x0, y0, x1, y1 of its polygons, if it has some.
            file: name of its image.
        """
        x, y, w, h = box = annotation["bbox"]
        if size is not None:
            width, height = size
            slack_x, slack_y = max(2, OVERHANG * width), max(2, OVERHANG * height)
            if x < -slack_x or y < -slack_y or x + w > width + slack_x or y + h > height + slack_y:
                self.outside.append((f"annotation {annotation['id']}: {box} in {width}x{height}", file))
        if w <= 0 or h <= 0:
            return
        self.count += 1
        self.ordered &= w > x and h > y
        if max(box) <= 1 and not all(v == int(v) for v in box):
            self.relative.append((f"annotation {annotation['id']}: {box}", file))
        if bounds is not None and (bounds[2] < x or bounds[3] < y or bounds[0] > x + w or bounds[1] > y + h):
            beside = f"{list(bounds[:2])} to {list(bounds[2:])} beside {box}"
            self.apart.append((f"annotation {annotation['id']}: {beside}", file))

    def judge(self, doubts: Findings) -> None:
        """Notes what is doubtful."""
        if 2 * len(self.relative) > self.count:
            way_out = f"{BOX[:-1]}: multiply x and width by the width of the image, y and height by its height."
            _note(doubts, "boxes whose coordinates lie between 0 and 1", self.relative, way_out)
            return
        way_out = CORNERS if self.ordered and self.count > 1 else f"{BOX[:-1]}, not two corners."
        _note(doubts, "boxes outside their image", self.outside, way_out)
        if not self.outside and 2 * len(self.apart) > self.count:
            way_out = "bbox and segmentation must be of the same object."
            _note(doubts, "masks outside of their boxes", self.apart, way_out)


def _note(doubts: Findings, kind: str, cases: list[tuple[str, str]], way_out: str) -> None:
    for example, file in cases:
        doubts.note(kind, example, way_out, file=file)
