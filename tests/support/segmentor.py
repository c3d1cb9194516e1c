"""A segmentation model of the golden file's size."""

from convmae_seg import ConvViTSeg, FCNHead, Segmentor, SlidingWindow, UperHead

SIZES = dict(embed_dim=(8, 16, 24), depth=(1, 1, 2), num_heads=4)


def build_segmentor(
    img_size: int = 64, channels: int = 16, aux_channels: int = 8, num_classes: int = 5, sizes=SIZES, **overrides
) -> Segmentor:
    """A segmentor from the arguments of the golden file's config."""
    dims = sizes["embed_dim"]
    return Segmentor(
        ConvViTSeg(img_size=img_size, **sizes),
        UperHead((*dims, dims[2]), num_classes, channels),
        FCNHead(dims[2], num_classes, aux_channels),
        num_classes,
        **dict(inference=SlidingWindow(img_size)) | overrides,
    )
