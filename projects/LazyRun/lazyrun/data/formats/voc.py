"""Pascal VOC: an XML file for each image, beside it or in `Annotations/` with the images in `JPEGImages/`."""

from pathlib import Path
from xml.etree import ElementTree

from lazyrun.data.formats.content import AnnotatedSet, CocoBuilder, listed
from lazyrun.data.formats.files import read_text, read_xml
from lazyrun.data.formats.shapes import corners_box
from lazyrun.data.formats.source import Source
from lazyrun.data.formats.split_names import SPLIT_NAMES, part_of_split
from lazyrun.data.formats.values import number
from pretrain.common.errors import UserError

__all__ = ["looks_like_voc", "read_voc"]

NAME = "Pascal VOC"


def looks_like_voc(root: ElementTree.Element) -> bool:
    return root.tag == "annotation"


def read_voc(source: Source) -> AnnotatedSet:
    """Boxes, and the polygons that Roboflow writes beside them.

    `xmin`, `ymin`, `xmax` and `ymax` are taken as corners, so that the width is `xmax - xmin`, as labelImg writes and
    torchvision reads them. (The devkit of the challenge itself counts pixels from 1 and means the last one in the box.)
    The image is the one with the name of the XML file, else the one it calls `filename`, which renaming leaves behind.

    Raises:
        UserError: a file is not of this format, or its image is missing.
    """
    files, part = _chosen(source)
    builder = CocoBuilder()
    used: set[Path] = set()
    difficult = 0
    for file in files:
        with builder.collecting():
            root = read_xml(file)
            image_file = _image_of(source, file, root)
            used.add(image_file)
            difficult += _read_file(builder, file, root, image_file)
    if part:
        builder.notes.append(f"its part {part!r}, {len(files)} of {len(source.files)} files")
    if difficult:
        builder.notes.append(f"{difficult} objects marked as difficult are used like all others")
    if source.folder and not part:
        bare = [f for f in source.folder.images if f not in used and "Segmentation" not in f.parent.name]
        if bare:
            builder.notes.append(f"{len(bare)} images without XML file are left out ({listed(f.name for f in bare)})")
    return builder.finish(source.path, NAME)


def _read_file(builder: CocoBuilder, file: Path, root: ElementTree.Element, image_file: Path) -> int:
    """Adds the objects of one image, and counts the difficult ones."""
    if not looks_like_voc(root):
        raise UserError(f"{file}: a file of {NAME} has <annotation> around it, not <{root.tag}>; move it away.")
    image = builder.image(image_file, _size(root, file), str(file))
    difficult = 0
    for index, item in enumerate(root.findall("object") if image else (), start=1):
        assert image is not None, "without an image nothing is read"
        with builder.collecting():
            _add(builder, image, item, f"{file}: object {index} ({(item.findtext('name') or '').strip()})")
        difficult += (item.findtext("difficult") or "").strip() == "1"
    return difficult


def _chosen(source: Source) -> tuple[list[Path], str]:
    """The files of a split as `ImageSets/Main` lists them, or as the folders are called."""
    lists = source.folder.path / "ImageSets" / "Main" if source.folder else None
    if source.split is None or lists is None or not lists.is_dir():
        return part_of_split(source.files, source.finder.path, source.split)
    names = ("train", "trainval") if source.split == "train" else SPLIT_NAMES["val"]
    file = next((lists / f"{name}.txt" for name in names if (lists / f"{name}.txt").is_file()), None)
    if file is None:
        raise UserError(f"{lists} has no {' or '.join(f'{n}.txt' for n in names)}; add one, or name another folder.")
    stems = [line.split()[0] for line in read_text(file).splitlines() if line.strip()]
    by_stem = {f.stem: f for f in source.files}
    missing = [stem for stem in stems if stem not in by_stem]
    if missing:
        raise UserError(f"{file}: {missing[0]} has no XML file; add {missing[0]}.xml or remove it from the list.")
    return [by_stem[stem] for stem in dict.fromkeys(stems)], file.stem


def _image_of(source: Source, file: Path, root: ElementTree.Element) -> Path:
    name = Path((root.findtext("filename") or "").strip().replace("\\", "/")).name
    try:
        return source.finder.find(f"{file.stem}{Path(name).suffix or '.jpg'}", file, by_stem=False)
    except UserError:
        pass
    try:
        return source.finder.find(file.stem, file, by_stem=True)
    except UserError:
        return source.finder.find(name or f"{file.stem}.jpg", file)


def _size(root: ElementTree.Element, file: Path) -> tuple[int, int] | None:
    """Width and height, where they are told."""
    texts = root.findtext("size/width"), root.findtext("size/height")
    if not all(texts):
        return None
    width, height = (number(text, str(file), "size") for text in texts)
    return int(width), int(height)


def _add(builder: CocoBuilder, image: dict, item: ElementTree.Element, where: str) -> None:
    box = item.find("bndbox")
    if box is None:
        raise UserError(f"{where}: it has no <bndbox>; add one or remove the object.")
    corners = [number(box.findtext(key), where, key) for key in ("xmin", "ymin", "xmax", "ymax")]
    outline = item.find("polygon")
    polygons = [] if outline is None else [_polygon(outline, where)]
    builder.add(image, item.findtext("name"), where, box=corners_box(*corners), polygons=polygons)


def _polygon(outline: ElementTree.Element, where: str) -> list[float]:
    """`<x1> <y1> <x2> <y2> …`."""
    values: list[float] = []
    while outline.find(f"x{len(values) // 2 + 1}") is not None:
        n = len(values) // 2 + 1
        values += [number(outline.findtext(f"{axis}{n}"), where, f"{axis}{n}") for axis in "xy"]
    return values
