"""Reconstruction pictures: original, masked, reconstruction, and reconstruction pasted around the visible patches."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pretrain.args import check_at_least
from pretrain.autoencoder import MaskedAutoencoderConvViT
from pretrain.checkpoint import load_checkpoint, replacing
from pretrain.checkpoint_kinds import Part, recognise
from pretrain.data import eval_transform, image_mode, normalisation
from pretrain.errors import exit_on_user_error
from pretrain.images import to_eight_bits
from pretrain.models import build_model
from pretrain.readers import open_reader

__all__ = ["load_autoencoder", "reconstruction_picture"]

GAP = 4


@torch.no_grad()
def reconstruction_picture(
    model: MaskedAutoencoderConvViT, imgs: torch.Tensor, mask_ratio: float, noise: torch.Tensor
) -> Image.Image:
    """One row for each image: original, masked, reconstruction, pasted.

    Under `norm_pix_loss` the model predicts patches normalised by their own mean and variance; both are taken from the
    original patch, as there is no other place to take them from. With complementary masks the first view is shown.

    Args:
        imgs: `(B, C, H, W)`, normalised, on the model's device.
        noise: `(B, L)`, fixes the masks.
    """
    was_training = model.training
    model.eval()
    _, pred, mask = model(imgs, mask_ratio, noise)
    model.train(was_training)
    B = imgs.shape[0]
    patches, pred, mask = model.patchify(imgs), pred[:B].float(), mask[:B, :, None]
    if model.norm_pix_loss:
        var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        pred = pred * (var + 1e-6).sqrt() + mean
    shown = [patches, patches.masked_fill(mask.bool(), 0), pred, torch.where(mask.bool(), pred, patches)]
    mean, std = (torch.tensor(v, device=imgs.device).view(-1, 1, 1) for v in normalisation(model.in_chans))
    columns = [(model.unpatchify(p) * std + mean).clamp(0, 1).cpu() for p in shown]
    return _grid(torch.stack(columns, dim=1))


def _grid(pictures: torch.Tensor) -> Image.Image:
    """Pictures `(rows, columns, C, H, W)` in [0, 1], side by side on white."""
    rows, columns, _, H, W = pictures.shape
    canvas = np.full((rows * (H + GAP) - GAP, columns * (W + GAP) - GAP, 3), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            # (C, H, W) -> (H, W, C)
            picture = (pictures[row, column] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            canvas[row * (H + GAP) :, column * (W + GAP) :][:H, :W] = picture
    return Image.fromarray(canvas)


def load_autoencoder(path: str, model_name: str | None, input_size: Sequence[int] | None) -> MaskedAutoencoderConvViT:
    """The model of a full checkpoint, built as its arguments say.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has no decoder, does not say which model it holds, or holds another one.
    """
    checkpoint = recognise(path)
    if not checkpoint.has(Part.DECODER):
        raise ValueError(
            f"{path} holds an encoder only. A reconstruction needs the decoder that was trained with it; a newly "
            "initialised one would paint noise. Give a full checkpoint (checkpoint-*.pth)."
        )
    args = load_checkpoint(path).get("args", {})
    args = args if isinstance(args, dict) else vars(args)
    name = model_name or args.get("model")
    if name is None:
        raise ValueError(f"{path} does not say which model it holds; name it with --model.")
    img_size = input_size or args.get("input_size", 224)
    model = build_model(
        name.removesuffix("_dec512d8b"),
        img_size=img_size if isinstance(img_size, int) else (list(img_size) * 2)[:2],
        in_chans=args.get("in_chans", 3),
        **({"patch_size": args["patch_size"]} if args.get("patch_size") else {}),
        norm_pix_loss=args.get("norm_pix_loss", True),
    )
    try:
        model.load_state_dict(checkpoint.tensors)
    except RuntimeError as e:
        raise ValueError(f"{path} does not hold a {name} at {model.img_size}: {str(e).splitlines()[1].strip()}") from e
    return model.eval()


def load_images(data_path: str, model: MaskedAutoencoderConvViT, count: int) -> torch.Tensor:
    """The first images of a folder, or one file, `(B, C, H, W)`."""
    transform, mode = eval_transform(model.img_size, model.in_chans), image_mode(model.in_chans)
    path = Path(data_path)
    if path.is_file() and path.suffix != ".tar":
        files = [path]
    else:
        reader = open_reader(data_path, "val")
        files = [reader[i][0] for i in range(min(count, len(reader)))]
    images = []
    for file in files:
        try:
            with file if isinstance(file, Image.Image) else Image.open(file) as image:
                images.append(transform(to_eight_bits(image).convert(mode)))
        except (OSError, ValueError) as e:
            raise ValueError(f"{getattr(file, 'name', file)} cannot be read as an image: {e}") from e
    return torch.stack(images)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pretrain.visualize", description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="full checkpoint of a pretraining run")
    parser.add_argument("--images", required=True, help="an image, or a folder of them")
    parser.add_argument("--output", required=True, help="picture to write, for example reconstructions.png")
    parser.add_argument("--count", type=int, default=8, help="images of a folder to show [8]")
    parser.add_argument("--mask_ratio", type=float, default=0.75, help="[0.75]")
    parser.add_argument("--model", help="needed for files that do not name their model")
    parser.add_argument("--input_size", type=int, nargs="+", help="likewise for their image size [224]")
    parser.add_argument("--seed", type=int, default=0, help="of the masks [0]")
    args = parser.parse_args(argv)
    output = Path(args.output)
    with exit_on_user_error(ValueError):
        if Image.registered_extensions().get(output.suffix.lower()) not in Image.SAVE:
            raise ValueError(f"--output {output} must end in .png, .jpg or another suffix of an image format.")
        check_at_least(args, 1, "count")
        model = load_autoencoder(args.checkpoint, args.model, args.input_size)
        imgs = load_images(args.images, model, args.count)
        L = model.grid_size[0] * model.grid_size[1]
        noise = torch.rand(len(imgs), L, generator=torch.Generator().manual_seed(args.seed))
        picture = reconstruction_picture(model, imgs, args.mask_ratio, noise)
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as temporary:
            picture.save(temporary)


if __name__ == "__main__":
    main()
