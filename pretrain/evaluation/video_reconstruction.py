"""Pictures of reconstructed clips: a contact sheet of frames, and an animation."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pretrain.data.pixels import normalisation
from pretrain.data.video.files import write_video
from pretrain.evaluation.reconstruction import GAP
from pretrain.models.video.autoencoder import VideoConvMAE, normalise_cubes

__all__ = ["ANIMATIONS", "contact_sheet", "reconstruct", "write_animation"]

ANIMATIONS = (".gif", ".mp4")
"""Suffixes that :func:`write_animation` takes."""

SHOWN_FRAMES = 8
"""Frames of a clip on a contact sheet, at most."""


@torch.no_grad()
def reconstruct(model: VideoConvMAE, clips: torch.Tensor, mask_ratio: float, noise: torch.Tensor) -> np.ndarray:
    """Original, masked, reconstruction, and reconstruction pasted around the visible tubes.

    Under `norm_pix_loss` the model predicts standardised cubes; mean and deviation are taken from the original.

    Args:
        clips: `(B, C, F, H, W)`, normalised, on the model's device.
        noise: `(B, L)`, fixes the tubes.

    Returns:
        uint8 `(B, 4, F, H, W, 3)`.
    """
    was_training = model.training
    model.eval()
    _, pred, mask = model(clips, mask_ratio, noise)
    model.train(was_training)
    cubes, pred, masked = model.patchify(clips), pred.float(), mask[:, :, None].bool()
    if model.norm_pix_loss:
        mean, std = normalise_cubes(cubes, model.in_chans)
        pred = (pred.unflatten(-1, (-1, model.in_chans)) * std + mean).flatten(-2)
    shown = [cubes, cubes.masked_fill(masked, 0), pred, torch.where(masked, pred, cubes)]
    mean, std = (torch.tensor(v, device=clips.device).view(-1, 1, 1, 1) for v in normalisation(model.in_chans))
    pixels = torch.stack([(model.unpatchify(c) * std + mean).clamp(0, 1) for c in shown], dim=1)
    # (B, 4, C, F, H, W) -> (B, 4, F, H, W, C)
    pixels = (pixels * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 5, 2)
    return pixels.expand(*pixels.shape[:-1], 3).cpu().numpy()


def contact_sheet(clips: np.ndarray) -> Image.Image:
    """A row for each of original, masked, reconstruction and pasted, a column for each of some frames.

    Args:
        clips: of :func:`reconstruct`.
    """
    B, rows, F, H, W, _ = clips.shape
    frames = np.unique(np.linspace(0, F - 1, min(F, SHOWN_FRAMES)).round().astype(int))
    sheet = np.full((B * rows * (H + GAP) - GAP, len(frames) * (W + GAP) - GAP, 3), 255, np.uint8)
    for row, pictures in enumerate(clips.reshape(B * rows, F, H, W, 3)):
        for column, frame in enumerate(frames):
            sheet[row * (H + GAP) :, column * (W + GAP) :][:H, :W] = pictures[frame]
    return Image.fromarray(sheet)


def write_animation(clips: np.ndarray, path: Path, scale: int = 1, frames_per_second: int = 8) -> None:
    """Writes a GIF or MP4 in which each clip is a row of original, masked, reconstruction and pasted.

    Args:
        clips: of :func:`reconstruct`.
        path: ends in .gif, which repeats for ever, or .mp4, which needs PyAV.
        scale: how many times pixels are enlarged.

    Raises:
        UserError: .mp4 without PyAV.
    """
    B, columns, F, H, W, _ = clips.shape
    frames = np.full((F, B * (H + GAP) - GAP, columns * (W + GAP) - GAP, 3), 255, np.uint8)
    for row in range(B):
        for column in range(columns):
            frames[:, row * (H + GAP) :, column * (W + GAP) :][:, :H, :W] = clips[row, column]
    frames = frames.repeat(scale, 1).repeat(scale, 2)
    if path.suffix.lower() == ".mp4":
        frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), "edge")
        write_video(frames, path, frames_per_second)
        return
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=1000 // frames_per_second, loop=0)
