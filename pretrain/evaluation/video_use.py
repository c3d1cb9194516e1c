"""What a trained video model says of files: their classes, or their features."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from pretrain.checkpoints.classifier_weights import load_classifier, load_trunk
from pretrain.checkpoints.published import local_weights
from pretrain.common.distributed import World
from pretrain.common.errors import UserError
from pretrain.common.files import load_checkpoint, replacing
from pretrain.data.samplers import eval_loader
from pretrain.data.video.datasets import EvenViews, LabelledClips
from pretrain.data.video.readers import open_videos
from pretrain.data.video.sampling import FrameSampler
from pretrain.evaluation.features import pooled_features
from pretrain.evaluation.views import ViewAverage
from pretrain.models import VIDEO_CLASSIFIERS, VideoConvViT, build_model

__all__ = ["FEATURE_SUFFIXES", "VideoUser", "save_features"]

FEATURE_SUFFIXES = (".npy", ".safetensors")


class VideoUser:
    """A model from an own file, which says how it was built and how frames were sampled.

    Args:
        path: a classifier, or for features also a pretraining file; its name or address (:func:`local_weights`) too.
        clips, crops: views of a video, which are averaged.
        needs_head: refuse a file without classes.

    Raises:
        FileNotFoundError, UserError: the file is missing or damaged, or was not written by this program.
    """

    def __init__(self, path: str, clips: int, crops: int, device: torch.device, needs_head: bool):
        path = local_weights(path)
        content = load_checkpoint(path)
        args: dict[str, Any] = content.get("args") or {}
        name = str(args.get("model", "")).replace("videoconvmae_convvit", "videoconvvit")
        if name not in VIDEO_CLASSIFIERS or "num_frames" not in args:
            raise UserError(f"{path} does not say which video model it holds; give a file that this program wrote.")
        self.classes: list[str] = list(content.get("classes") or ())
        options = {option: args[option] for option in ("num_frames", "tubelet_size", "conv_frames", "in_chans")}
        model = build_model(
            name,
            img_size=args["input_size"],
            patch_size=args["patch_size"],
            positions=args.get("positions", "learned"),
            num_classes=len(self.classes) if needs_head else 0,
            **options,
        )
        assert isinstance(model, VideoConvViT)
        (load_classifier if needs_head else load_trunk)(model, path)
        self.model, self.device = model.to(device).eval(), device
        sampler = FrameSampler(args["num_frames"], args["sampling"], args["frame_step"])
        self.views = EvenViews(sampler, args["input_size"], args["in_chans"], clips, crops)

    @torch.no_grad()
    def probabilities(self, video: str) -> list[tuple[str, float]]:
        """Classes of a video file or folder of frames, the most probable first.

        Raises:
            FileNotFoundError, UserError: there is no such video, it cannot be read, or there are several.
        """
        reader = open_videos(video, "")
        if len(reader) > 1:
            raise UserError(f"{video} holds {len(reader)} videos; give one of them.")
        clips = LabelledClips(reader, self.views, 0, self.model.in_chans, replace=False)
        view = clips[0, 0].image.unsqueeze(0).to(self.device)
        scores = ViewAverage(self.model)(view).softmax(-1)[0]
        order = scores.argsort(descending=True).tolist()
        return [(self.classes[i], scores[i].item()) for i in order]

    @torch.no_grad()
    def features(self, data_path: str, num_workers: int, root: str = "") -> tuple[np.ndarray, list[str]]:
        """Features float32 `(N, C)` of all videos of a folder or list, the mean over their views, and their names.

        Raises:
            UserError: there are no videos, or one cannot be read.
        """
        reader = open_videos(data_path, "", root)
        clips = LabelledClips(reader, self.views, 0, self.model.in_chans, replace=False)
        features = np.concatenate(list(self._batches(clips, num_workers)))
        base = Path(data_path) if Path(data_path).is_dir() else None
        return features, [os.path.relpath(path, base) if base else path for path in reader.paths]

    def _batches(self, clips: LabelledClips, num_workers: int) -> Iterator[np.ndarray]:
        for batch in eval_loader(clips, 1, num_workers, World()):
            image = batch.image.to(self.device)
            views = image.flatten(0, 1) if image.ndim == 6 else image
            yield pooled_features(self.model, views).float().mean(0, keepdim=True).cpu().numpy()


def save_features(features: np.ndarray, names: list[str], path: Path) -> None:
    """Writes features as a NumPy file with a list of names beside it, or as one safetensors file.

    Args:
        path: ends in `.npy` or `.safetensors`; the latter has the tensor `features` and the metadata `names`, as JSON.

    Raises:
        UserError: the path ends in neither.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        with replacing(path) as temporary:
            save_file({"features": features}, temporary, metadata={"names": json.dumps(names)})
        return
    with replacing(path) as temporary:
        np.save(temporary, features)
    with replacing(path.with_suffix(".txt")) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in names))
