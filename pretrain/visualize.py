"""Reconstruction pictures: original, masked, reconstruction, and reconstruction pasted around the visible patches."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from pretrain.checkpoints.kinds import Part
from pretrain.checkpoints.recognition import recognise
from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.errors import UserError
from pretrain.common.files import load_checkpoint, replacing
from pretrain.common.images import to_eight_bits
from pretrain.common.utf8 import use_utf8
from pretrain.data.readers import open_reader
from pretrain.data.transforms import eval_transform, image_mode
from pretrain.evaluation.reconstruction import reconstruction_picture
from pretrain.models import build_model
from pretrain.models.autoencoder import MaskedAutoencoderConvViT
from pretrain.training.args import check_at_least, check_seed

__all__ = ["load_autoencoder"]

SHOWN_SIDE = 192
"""Pixels that smaller images are enlarged to, at most."""


def load_autoencoder(path: str, model_name: str | None, input_size: Sequence[int] | None) -> MaskedAutoencoderConvViT:
    """The model of a full checkpoint, built as its arguments say.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the file has no decoder, does not say which model it holds, or holds another one.
    """
    checkpoint = recognise(path)
    if not checkpoint.has(Part.DECODER):
        raise UserError(
            f"{path} holds an encoder only. A reconstruction needs the decoder that was trained with it; a newly "
            "initialised one would paint noise. Give a full checkpoint (checkpoint-*.pth)."
        )
    args = load_checkpoint(path).get("args", {})
    args = args if isinstance(args, dict) else vars(args)
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
    )
    if not isinstance(model, MaskedAutoencoderConvViT):
        raise UserError(f"{name} is a classifier, which reconstructs nothing; name the pretraining model with --model.")
    if "decoder_pred.weight" not in checkpoint.tensors:
        raise UserError(f"{path} is of a run without the target rgb, so it reconstructs no images.")
    of_targets = ("decoder_targets.", "mimic_head.")
    try:
        model.load_state_dict({name: t for name, t in checkpoint.tensors.items() if not name.startswith(of_targets)})
    except RuntimeError as e:
        raise UserError(f"{path} does not hold a {name} at {model.img_size}: {str(e).splitlines()[1].strip()}") from e
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
                pixels = to_eight_bits(image).convert(mode)
        except (OSError, SyntaxError, ValueError) as e:  # Pillow's, for damaged files
            raise UserError(f"{getattr(file, 'name', file)} cannot be read as an image: {e}") from e
        images.append(transform(pixels))
    return torch.stack(images)


def enlargement(img_size: Sequence[int]) -> int:
    """How many times small images are enlarged, so that their patches can be seen."""
    return max(1, SHOWN_SIDE // max(img_size))


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
    add_traceback_option(parser)
    args = parser.parse_args(argv)
    output = Path(args.output)
    with exit_on_user_error():
        if Image.registered_extensions().get(output.suffix.lower()) not in Image.SAVE:
            raise UserError(f"--output {output} must end in .png, .jpg or another suffix of an image format.")
        check_at_least(args, 1, "count")
        check_seed(args)
        model = load_autoencoder(args.checkpoint, args.model, args.input_size)
        imgs = load_images(args.images, model, args.count)
        L = model.grid_size[0] * model.grid_size[1]
        noise = torch.rand(len(imgs), L, generator=torch.Generator().manual_seed(args.seed))
        picture = reconstruction_picture(model, imgs, args.mask_ratio, noise)
        picture = picture.resize(
            [side * enlargement(model.img_size) for side in picture.size], Image.Resampling.NEAREST
        )
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as temporary:
            picture.save(temporary)


if __name__ == "__main__":
    use_utf8()
    main()
