"""The training commands on data of a few images: each takes about a second."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from PIL import Image
from scripts import import_work, load_tool
from shapes import CONFIG, REPO, SMALL, make_shapes

from lazyrun.config.loading import load_config
from lazyrun.config.task import task_of
from pretrain import finetune, knn, linprobe, visualize
from pretrain.__main__ import main as pretrain_main
from soaking.sandbox import Ended, Limits, run

__all__ = ["COMMANDS", "TRAININGS", "Training", "import_all", "lab"]

SEGMENTATION = "projects/ConvMAESeg/configs/shapes/upernet_convmae_tiny.py"
TINY_SEGMENTATION = [
    *("model.backbone.embed_dim=[8,8,16]", "model.backbone.depth=[1,1,1]", "dataloader.train.total_batch_size=2"),
    *("model.decode_head.channels=8", "model.auxiliary_head.channels=8", "train.log_period=1"),
]
PERIODS = ["train.max_iter=4", "train.checkpointer.period=2"]

Main = Callable[[Sequence[str]], object]


TOOLS = ("lazyconfig_train_net", "predict", "convert_checkpoint", "visualize_data", "analyze_model")

load_once = cache(load_tool)


def _call_tool(name: str, argv: Sequence[str]) -> None:
    """Calls the `main` of a script of `tools/`, which reads `sys.argv`."""
    sys.argv = [f"tools/{name}.py", *argv]
    load_once(name).main()


COMMANDS: dict[str, Main] = {
    "python -m pretrain": pretrain_main,
    "python -m pretrain.finetune": finetune.main,
    "python -m pretrain.linprobe": linprobe.main,
    "python -m pretrain.knn": knn.main,
    "python -m pretrain.visualize": visualize.main,
    **{f"python tools/{name}.py": partial(_call_tool, name) for name in TOOLS},
}


@dataclass(frozen=True)
class Training:
    """One training command.

    Attributes:
        command: a key of :data:`COMMANDS`.
        arguments: without the output folder; a name in braces is a path of the lab's.
        weights: files that a run leaves, which other commands begin from.
    """

    command: str
    arguments: tuple[str, ...]
    weights: tuple[str, ...]

    @property
    def is_lazy(self) -> bool:
        return "lazyconfig" in self.command

    def argv(self, output: Path, *more: str, resume: bool = False) -> list[str]:
        """The arguments of a run; of `more`, flags come first and overrides last."""
        chosen = [part.format(lab=lab.root) for part in self.arguments]
        flags = [part for part in more if not self.is_lazy or part.startswith("--")]
        if self.is_lazy:
            overrides = [part for part in more if not part.startswith("--")]
            return [*flags, *(["--resume"] if resume else []), *chosen, f"train.output_dir={output}", *overrides]
        return [*chosen, "--output_dir", str(output), *(["--resume", "auto"] if resume else []), *flags]

    @property
    def name(self) -> str:
        return next(name for name, training in TRAININGS.items() if training is self)

    def run(self, output: Path, *more: str, resume: bool = False, limits: Limits = Limits()) -> Ended:
        argv = self.argv(output, *more, resume=resume)
        return run(lambda: COMMANDS[self.command](argv), limits, cwd=REPO)


def _flags(model: str, **values: object) -> tuple[str, ...]:
    common = dict(model=model, data_path="{lab}/images", batch_size=2, epochs=2, warmup_epochs=1, num_workers=0)
    common |= dict(device="cpu", lr=1e-3, save_steps=1, log_steps=1)
    return tuple(part for name, value in (common | values).items() for part in (f"--{name}", str(value)))


CLASSIFIER = dict(model="convvit_tiny_patch8_32", init_weights="{lab}/encoder.pth")
TRAININGS = {
    "pretrain": Training(
        "python -m pretrain",
        _flags("convmae_convvit_tiny_patch8_32", probe="{lab}/images", probe_k=2),
        ("encoder.pth",),
    ),
    "mixture": Training(
        "python -m pretrain",
        (*_flags("convmae_convvit_tiny_patch8_32"), *("--targets", "rgb", "ema", "--ema_decay", "0.5")),
        ("encoder.pth",),
    ),
    "video": Training(
        "python -m pretrain",
        _flags(
            "videoconvmae_convvit_tiny_patch16", data_path="{lab}/clips", input_size=32, num_frames=2, mask_ratio=0.5
        ),
        ("encoder.pth",),
    ),
    "finetune": Training(
        "python -m pretrain.finetune",
        _flags(**CLASSIFIER, model_ema=0.9),
        ("classifier.pth", "classifier_ema.pth", "classifier_best.pth"),
    ),
    "linprobe": Training(
        "python -m pretrain.linprobe",
        _flags(**CLASSIFIER),
        ("classifier.pth", "classifier_best.pth"),
    ),
    "detector": Training(
        "python tools/lazyconfig_train_net.py",
        ("--num-gpus", "0", "--config-file", CONFIG, *SMALL, *PERIODS, "train.ema.decay=0.5", "train.eval_period=3"),
        ("model_final.pth", "model_final_ema.pth", "model_best.pth"),
    ),
    "segmentation": Training(
        "python tools/lazyconfig_train_net.py",
        ("--num-gpus", "0", "--config-file", SEGMENTATION, *TINY_SEGMENTATION, *PERIODS, "train.eval_period=3"),
        ("model_final.pth", "model_best.pth"),
    ),
}


class Lab:
    """The data, and a whole run of each training, made when they are first asked for."""

    @cached_property
    def root(self) -> Path:
        root = Path(mkdtemp(prefix="soak-"))
        generator = np.random.default_rng(0)
        for split in ("train", "val"):
            for kind in ("ant", "bee"):
                (root / "images" / split / kind).mkdir(parents=True)
                for i in range(2):
                    pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(root / "images" / split / kind / f"{i}.png")
        for clip in range(4):  # folders of frames need no decoder of videos
            (root / "clips" / "train" / str(clip)).mkdir(parents=True)
            for i in range(3):
                pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / "clips" / "train" / str(clip) / f"{i}.png")
        return root

    @cached_property
    def shapes(self) -> Path:
        """Pictures of shapes with boxes, masks and label maps, registered with detectron2."""
        make_shapes(self.root, train=4, val=2)
        return self.root / "shapes"

    @cache  # noqa: B019 (there is one lab)
    def whole(self, name: str) -> tuple[Path, Ended]:
        """The folder of an uninterrupted run, and how it ended.

        Raises:
            RuntimeError: it did not end well, so nothing can be compared with it.
        """
        if name in ("finetune", "linprobe") and not (self.root / "encoder.pth").exists():
            (self.root / "encoder.pth").write_bytes((self.whole("pretrain")[0] / "encoder.pth").read_bytes())
        folder = self.root / f"whole-{name}"
        if TRAININGS[name].is_lazy:
            assert self.shapes.is_dir()
        ended = TRAININGS[name].run(folder, limits=Limits(folder=folder))
        if ended.code != 0 or ended.fault:
            raise RuntimeError(f"the uninterrupted run failed: {name}\n{ended.output[-3000:]}")
        return folder, ended


def import_all() -> None:
    """Imports what commands import on their way, so that a forked process need not."""
    os.environ["DETECTRON2_DATASETS"] = str(lab.root)  # read when the data sets are registered
    for name in TOOLS:
        import_work(REPO / "tools" / f"{name}.py")
    for name in ("__main__", "finetune", "linprobe", "knn", "visualize"):
        import_work(REPO / "pretrain" / f"{name}.py")
    for config in (CONFIG, SEGMENTATION):
        task_of(load_config(str(REPO / config)))
    import torch.utils.tensorboard  # noqa: F401


lab = Lab()
