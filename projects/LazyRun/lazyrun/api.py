"""Training, loading and using models from Python, in one line each."""

import json
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lazyrun.onnx_runner import OnnxModel

__all__ = ["RunModel", "import_plugins", "load_model", "train"]


def load_model(
    source: str | os.PathLike,
    weights: str | os.PathLike | None = None,
    *,
    overrides: Sequence[str] = (),
    device: str | None = None,
    score_threshold: float = 0.0,
    batch_size: int = 1,
) -> "RunModel | OnnxModel":
    """A trained model as a function of images.

        model = load_model("output/mine")
        found = model("image.jpg")

    Args:
        source: the folder of a run, of which the best weights are taken (`model_best.pth`, else the last checkpoint);
            a LazyConfig `.py` file or a `config.yaml`; or an exported `.onnx` file.
        weights: a checkpoint, in place of the run's best.
        overrides: `key=value` changes to the config.
        device: such as "cuda:1" or "cpu"; None takes a GPU if there is one.
        score_threshold: least score of what is returned, in [0, 1].
        batch_size: images that go through the model at a time.

    Returns:
        :class:`RunModel`, or of an exported file :class:`lazyrun.onnx_runner.OnnxModel`, for which neither PyTorch nor
        detectron2 is imported; what they find has other types.

    Raises:
        UserError: there is no such run, or it cannot be used.
        OnnxFileError: the exported file cannot be used.
    """
    if str(source).endswith(".onnx"):
        from lazyrun.onnx_runner import OnnxModel

        providers = None
        if device is not None:
            providers = ["CPUExecutionProvider"] if device == "cpu" else ["CUDAExecutionProvider"]
        return OnnxModel(source, providers=providers, score_threshold=score_threshold)
    import_plugins()
    from lazyrun.engine.run_folder import find_run

    config, best = find_run(source) if Path(source).is_dir() else (Path(source), None)
    return RunModel(
        config,
        weights or best,
        overrides=overrides,
        device=device,
        score_threshold=score_threshold,
        batch_size=batch_size,
    )


def import_plugins() -> None:
    """Imports the packages of `plugins.txt` that are installed, which register how their models are loaded."""
    lines = (Path(__file__).parent / "plugins.txt").read_text().splitlines()
    for name in lines:
        if name and not name.startswith("#") and find_spec(name) is not None:
            __import__(name)


class RunModel:
    """A model with its config and weights: predicts, evaluates, and can be exported.

    Args:
        config_file: LazyConfig `.py` file or the `config.yaml` of a run.
        weights: checkpoint; None takes the config's `train.init_checkpoint`.
        overrides: `key=value` changes to the config.
        options: of the task's predictor, such as :class:`lazyrun.inference.predictor.Predictor`.

    Attributes:
        predictor: predicts; has the model, its transform and its classes.

    Raises:
        UserError: config or weights cannot be used.
    """

    def __init__(
        self,
        config_file: str | os.PathLike,
        weights: str | os.PathLike | None = None,
        *,
        overrides: Sequence[str] = (),
        **options: Any,
    ):
        from lazyrun.config.loading import load_config
        from lazyrun.config.task import task_of

        cfg = load_config(str(config_file), overrides)
        self.weights = str(weights or cfg.train.init_checkpoint)
        self.predictor = task_of(cfg).predictor(cfg, self.weights, **options)

    @property
    def class_names(self) -> list[str]:
        """Names in the order of class indices."""
        return self.predictor.class_names

    def __call__(
        self, images: np.ndarray | str | os.PathLike | Sequence[np.ndarray | str | os.PathLike], **slicing: Any
    ) -> Any:
        """Predicts one image or a list of images, as the task's predictor does.

        Args:
            images: as the predictor takes them.
            slicing: of a detector: `slice=640` also looks at slices of this side, see
                :meth:`lazyrun.inference.predictor.Predictor.__call__`.

        Raises:
            UserError: images cannot be sliced in this way, or the model is no detector.
        """
        return self.predictor(images, **slicing)

    def export(
        self,
        path: str | os.PathLike,
        *,
        precision: str = "fp32",
        calibration: str | os.PathLike | None = None,
        **settings: Any,
    ) -> Path:
        """Writes the whole model as an ONNX file, which :func:`load_model` reads.

        Args:
            path: file ending in `.onnx`; replaced if it exists.
            precision: of the layers: "fp32", "fp16" or "int8".
            calibration: for int8, a folder with images like those that the model will see.
            settings: of parts of the model that can run in several ways, and `square`, the side in pixels of the square
                that images are padded to, for models that have none of their own.

        Raises:
            UserError: the model cannot be exported, or is on a GPU.
        """
        from lazyrun.export.whole import export_whole
        from lazyrun.inference.inputs import find_images
        from pretrain.common.errors import UserError

        path = Path(path)
        if path.suffix != ".onnx":
            raise UserError(f"Output {path} must end in .onnx.")
        export_whole(
            self.predictor,
            path,
            square=settings.pop("square", None),
            settings=settings,
            precision=precision,
            calibration=find_images([str(calibration)], path / "none") if calibration else None,
        )
        return path

    def evaluate(self, output_dir: str | os.PathLike | None = None) -> dict[str, Any]:
        """Evaluates on the config's test data, as `--eval-only` does, and returns the metrics.

        Args:
            output_dir: folder for the results; by default `eval` in the config's `train.output_dir`.

        Raises:
            UserError: the data cannot be used, or the weights were trained on other classes.
        """
        from lazyrun.config.resolve import resolve_config
        from lazyrun.data.categories import check_same_classes
        from lazyrun.engine.evaluate import evaluate
        from lazyrun.engine.train import first_name

        cfg = self.predictor.cfg.copy()
        cfg.train.device = self.predictor.device
        cfg.test.tta.enabled = False  # the predictor's model has it already
        folder = Path(output_dir) if output_dir else Path(cfg.train.output_dir) / "eval"
        cfg = resolve_config(cfg, training=False, output_dir=folder).cfg
        check_same_classes(self.weights, first_name(cfg.dataloader.test), "evaluate it on data of its own classes.")
        folder.mkdir(parents=True, exist_ok=True)
        return evaluate(cfg, self.predictor.model)


def train(
    config: str | os.PathLike,
    *,
    resume: bool = False,
    num_gpus: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    **more_overrides: Any,
) -> Path:
    """Trains a model, with the checks and files of `tools/lazyconfig_train_net.py`.

        train("config.py", train__output_dir="output/mine", data__image_size=512)

    Args:
        config: LazyConfig `.py` file, or the `config.yaml` of a run.
        resume: go on from the last checkpoint in the output folder.
        num_gpus: processes, one for each GPU; None takes one process.
        overrides: changes to the config by key, such as `{"train.output_dir": "output/mine"}`.
        more_overrides: the same as keywords, with two underscores for each dot.

    Returns:
        the output folder, for :func:`load_model`.

    Raises:
        UserError: config, data or weights cannot be used.
    """
    import_plugins()
    from detectron2.engine import default_argument_parser

    from lazyrun.config.loading import load_config
    from lazyrun.engine.launch import launch
    from lazyrun.engine.run import run

    changes = {**(overrides or {}), **{key.replace("__", "."): value for key, value in more_overrides.items()}}
    command = [*(["--resume"] if resume else []), f"--num-gpus={1 if num_gpus is None else num_gpus}"]
    options = [override_text(key, value) for key, value in changes.items()]
    args = default_argument_parser().parse_args(["--config-file", str(config), *command, *options])
    cfg = load_config(args.config_file, args.opts)
    output_dir = Path(cfg.train.output_dir)
    if num_gpus is None and not cfg.train.device.startswith("cuda"):
        args.num_gpus = 0
    try:
        launch(run, args, cfg)
    except SystemExit as e:  # how commands end; here the mistake itself is of more use
        if e.__context__ is not None:
            raise e.__context__ from None
        raise
    return output_dir


def override_text(key: str, value: Any) -> str:
    """`key=value` as the command line takes it."""
    return f"{key}={_value_text(value)}"


def _value_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{_value_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_value_text, value)) + "]"
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    quoted = text.replace("\\", "\\\\").replace('"', '\\"') if '"' in text else text
    return f'"{quoted}"'
