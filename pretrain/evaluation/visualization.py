"""Pictures of what a checkpoint reconstructs of images or clips, from its file to theirs."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from pretrain.checkpoints.kinds import Part
from pretrain.checkpoints.published import local_weights
from pretrain.checkpoints.recognition import recognise
from pretrain.common.errors import UserError
from pretrain.common.files import load_checkpoint, replacing
from pretrain.common.images import to_eight_bits
from pretrain.data.pixels import normalise
from pretrain.data.readers import open_reader
from pretrain.data.transforms import eval_transform, image_mode
from pretrain.data.video.datasets import EvenViews, MaskedClips
from pretrain.data.video.readers import open_videos
from pretrain.data.video.sampling import FrameSampler
from pretrain.evaluation.reconstruction import reconstruction_picture
from pretrain.evaluation.video_reconstruction import ANIMATIONS, contact_sheet, reconstruct, write_animation
from pretrain.models import VideoConvMAE, build_model
from pretrain.models.autoencoder import DEFAULT_MASK_RATIO, MaskedAutoencoderConvViT
from pretrain.models.video.autoencoder import DEFAULT_MASK_RATIO as DEFAULT_TUBE_RATIO
from pretrain.names import CLIP_OPTIONS, VIDEO_MODELS

__all__ = ["draw", "load_autoencoder"]

SHOWN_SIDE = 192
"""Pixels that smaller images are enlarged to, at most."""


def load_autoencoder(
    path: str, model_name: str | None, input_size: Sequence[int] | None
) -> MaskedAutoencoderConvViT | VideoConvMAE:
    """The model of a full checkpoint, built as its arguments say; `path` may be a name or address, too.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the file has no decoder, does not say which model it holds, or holds another one.
    """
    checkpoint = recognise(local_weights(path))
    if not checkpoint.has(Part.DECODER):
        raise UserError(
            f"{path} holds an encoder only. A reconstruction needs the decoder that was trained with it; a newly "
            "initialised one would paint noise. Give a full checkpoint (checkpoint-*.pth)."
        )
    args = _args_of(path)
    name = model_name or args.get("model")
    if name is None:
        raise UserError(f"{path} does not say which model it holds; name it with --model.")
    img_size = input_size or args.get("input_size", 224)
    model = build_model(
        name.removesuffix("_dec512d8b"),
        img_size=img_size if isinstance(img_size, int) else (list(img_size) * 2)[:2],
        in_chans=args.get("in_chans", 3),
        **{size: args[size] for size in ("patch_size", "mlp_ratio") if args.get(size)},
        norm_pix_loss=args.get("norm_pix_loss", True),
        **({option: args[option] for option in CLIP_OPTIONS if option in args} if name in VIDEO_MODELS else {}),
    )
    if not isinstance(model, MaskedAutoencoderConvViT | VideoConvMAE):
        raise UserError(f"{name} is a classifier, which reconstructs nothing; name the pretraining model with --model.")
    if "decoder_pred.weight" not in checkpoint.tensors:
        raise UserError(f"{path} is of a run without the target rgb, so it reconstructs no images.")
    of_targets = ("decoder_targets.", "mimic_head.")
    try:
        model.load_state_dict({name: t for name, t in checkpoint.tensors.items() if not name.startswith(of_targets)})
    except RuntimeError as e:
        raise UserError(f"{path} does not hold a {name} at {model.img_size}: {str(e).splitlines()[1].strip()}") from e
    return model.eval()


def _args_of(path: str) -> dict[str, Any]:
    """The arguments of the run that wrote a file, if it holds them."""
    args = load_checkpoint(local_weights(path)).get("args", {})
    return args if isinstance(args, dict) else vars(args)


def load_clips(path: str, data_path: str, model: VideoConvMAE, count: int) -> torch.Tensor:
    """The middle clips of the first videos of a folder, or of one file, `(B, C, F, H, W)`, sampled as in training."""
    args = _args_of(path)
    options = {name: args[name] for name in ("sampling", "frame_step") if name in args}
    image_mode(model.in_chans)  # raises on channels that no file has
    views = EvenViews(FrameSampler(model.num_frames, **options), model.img_size, model.in_chans)
    clips = MaskedClips(open_videos(data_path, "val"), views, 1, 0, model.in_chans)
    return torch.stack([clips[0, i].image for i in range(min(count, len(clips)))])


def load_images(data_path: str, model: MaskedAutoencoderConvViT, count: int) -> torch.Tensor:
    """The first images of a folder, or one file, `(B, C, H, W)`, normalised."""
    transform, mode = eval_transform(model.img_size), image_mode(model.in_chans)
    images = []
    for file in _image_files(data_path, count):
        try:
            with file if isinstance(file, Image.Image) else Image.open(file) as image:
                pixels = to_eight_bits(image).convert(mode)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:  # Pillow's, for damaged files
            raise UserError(f"{getattr(file, 'name', file)} cannot be read as an image: {e}") from e
        images.append(transform(pixels))
    return normalise(torch.stack(images))


def _image_files(data_path: str, count: int) -> Iterator[Any]:
    """The first images of a folder, or one file: a path, a PIL image, or a file that is open until the next one is."""
    path = Path(data_path)
    if path.is_file() and path.suffix != ".tar":
        yield path
        return
    reader = open_reader(data_path, "val")
    for i in range(min(count, len(reader))):
        file = reader[i][0]
        with nullcontext() if isinstance(file, Image.Image) else file:
            yield file


def enlargement(img_size: Sequence[int]) -> int:
    """How many times small images are enlarged, so that their patches can be seen."""
    return max(1, SHOWN_SIDE // max(img_size))


def draw(args: argparse.Namespace) -> None:
    """Writes the picture that the arguments of `python -m pretrain.visualize` ask for.

    Raises:
        FileNotFoundError, UserError: files that are missing or cannot be used.
    """
    output = Path(args.output)
    _check_suffix(output)
    model = load_autoencoder(args.checkpoint, args.model, args.input_size)
    if isinstance(model, VideoConvMAE):
        _draw_clips(model, args, output)
    else:
        _draw_images(model, args, output)


def _check_suffix(output: Path, of_images: bool = False) -> None:
    """Raises UserError for a suffix that nothing is written with, or only of clips."""
    suffix = output.suffix.lower()
    if suffix == ".mp4" and of_images:
        raise UserError(f"--output {output}: animations show videos, and the model is one of images; write a .png.")
    if suffix not in ANIMATIONS and Image.registered_extensions().get(suffix) not in Image.SAVE:
        raise UserError(f"--output {output} must end in .png, .jpg or another suffix of an image format, or in .mp4.")


def _noise(model: MaskedAutoencoderConvViT | VideoConvMAE, count: int, seed: int) -> torch.Tensor:
    L = model.grid_size[0] * model.grid_size[1]
    return torch.rand(count, L, generator=torch.Generator().manual_seed(seed))


def _draw_images(model: MaskedAutoencoderConvViT, args: argparse.Namespace, output: Path) -> None:
    _check_suffix(output, of_images=True)
    imgs = load_images(args.images, model, args.count)
    mask_ratio = DEFAULT_MASK_RATIO if args.mask_ratio is None else args.mask_ratio
    picture = reconstruction_picture(model, imgs, mask_ratio, _noise(model, len(imgs), args.seed))
    _save(picture, enlargement(model.img_size), output)


def _draw_clips(model: VideoConvMAE, args: argparse.Namespace, output: Path) -> None:
    clips = load_clips(args.checkpoint, args.images, model, args.count)
    mask_ratio = DEFAULT_TUBE_RATIO if args.mask_ratio is None else args.mask_ratio
    drawn = reconstruct(model, clips, mask_ratio, _noise(model, len(clips), args.seed))
    if output.suffix.lower() not in ANIMATIONS:
        _save(contact_sheet(drawn), enlargement(model.img_size), output)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as temporary:
        write_animation(drawn, temporary, enlargement(model.img_size))


def _save(picture: Image.Image, scale: int, output: Path) -> None:
    picture = picture.resize([side * scale for side in picture.size], Image.Resampling.NEAREST)
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as temporary:
        picture.save(temporary)
