"""Annotated images in the formats that annotation tools write, read as COCO content: one format a file.

The formats are parsed here and not by a library. In supervision (0.31) masks become bitmaps of whole images and the
corners of polygons whole pixels; globox (2.9) reads boxes alone; datumaro (1.13) reads most formats, but pins Pillow
and NumPy and brings pandas and pyarrow. None reads VIA and Label Studio too, and none names the file and the object
that it stumbles over, which is most of what is needed here.
"""

from lazyrun.data.formats.content import AnnotatedSet
from lazyrun.data.formats.registry import FORMATS, read_dataset

__all__ = ["FORMATS", "AnnotatedSet", "read_dataset"]
