"""One function gives the config of a run, with everything derived and nothing left to change."""

import re

import pytest
from custom import write_custom
from detectron2.config import LazyConfig
from omegaconf import OmegaConf
from omegaconf.errors import ReadonlyConfigError
from shapes import CONFIG, REPO, SMALL

from lazyrun.config.loading import load_config
from lazyrun.config.resolve import resolve_config
from lazyrun.engine.run_folder import write_config
from pretrain.common.errors import UserError

IN_EPOCHS = ["train.epochs=30", "train.lr_base_batch_size=4", "dataloader.train.total_batch_size=2"]


def resolve(config, *overrides, training=True, **options):
    return resolve_config(config, [*SMALL, *overrides], training=training, **options)


def test_everything_that_follows_is_in_the_config(shapes, tmp_path):
    small = [o for o in SMALL if not o.startswith("train.eval_period")]
    options = [*write_custom(shapes, tmp_path), *IN_EPOCHS, f"train.output_dir={tmp_path / 'run'}"]
    run = resolve_config(str(REPO / CONFIG), [*small, *options], training=True)
    cfg = run.cfg
    assert cfg.model.roi_heads.num_classes == 3 and cfg.dataloader.train.dataset.names == str(tmp_path / "train.json")
    assert cfg.train.max_iter == run.recipe.max_iter == 120 and len(run.train_dataset) == 8
    assert cfg.optimizer.lr == pytest.approx(5e-4) and cfg.train.lr_base_batch_size == 2
    assert cfg.lr_multiplier.scheduler.num_updates == 120
    assert cfg.dataloader.evaluator.output_dir == str(tmp_path / "run" / "inference")
    assert run.task.name == "detection"


def test_nothing_changes_it_afterwards(shapes, monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shapes))
    cfg = resolve(str(REPO / CONFIG), *write_custom(shapes, tmp_path)).cfg
    for node in (cfg.train, cfg.model.roi_heads, cfg.optimizer):
        with pytest.raises(ReadonlyConfigError):
            node.update(lr=1)


def test_what_is_written_resolves_to_itself(shapes, tmp_path):
    overrides = [*write_custom(shapes, tmp_path), *(o for o in IN_EPOCHS if "total" not in o)]
    small = [o for o in SMALL if not o.startswith("train.eval_period")]
    first = resolve_config(str(REPO / CONFIG), [*small, *overrides], training=True, output_dir=tmp_path)
    write_config(first.cfg)
    again = resolve_config(str(tmp_path / "config.yaml"), training=True)
    LazyConfig.save(again.cfg.copy(), str(tmp_path / "again.yaml"))
    assert (tmp_path / "again.yaml").read_text() == (tmp_path / "config.yaml").read_text()


def test_a_loaded_config_is_left_as_it_is(shapes, tmp_path):
    loaded = load_config(str(REPO / CONFIG), [*SMALL, *write_custom(shapes, tmp_path)])
    before = loaded.copy()
    resolve_config(loaded, training=True, output_dir=tmp_path / "other")
    assert loaded == before and loaded.model.roi_heads.num_classes == 4


def test_an_evaluation_needs_no_training_data_but_an_evaluator(shapes, tmp_path):
    options = write_custom(shapes, tmp_path)
    run = resolve(str(REPO / CONFIG), *options[2:], training=False)
    assert run.recipe is None and not run.train_dataset
    with pytest.raises(UserError, match=r"no dataloader\.evaluator, so --eval-only has nothing to evaluate"):
        resolve(str(REPO / CONFIG), *options[:2], training=False)


def test_numbers_of_a_run():
    """Refused before anything is read: some would show after the training."""
    cfg = load_config(str(REPO / CONFIG), SMALL)
    for key, value, message in (
        ("dataloader.test.batch_size", 0, "must be a whole number, at least 1."),
        ("dataloader.train.num_workers", -1, "must be a whole number, at least 0."),
        ("dataloader.test.num_workers", 1.5, "must be a whole number, at least 0."),
        ("train.seed", 1.5, "must be a whole number below 2**63; a negative one seeds nothing."),
        ("train.seed", True, "must be a whole number below 2**63"),
        ("train.seed", 2**63, "must be a whole number below 2**63"),
    ):
        changed = cfg.copy()
        OmegaConf.update(changed, key, value)
        with pytest.raises(UserError, match=re.escape(f"{key}={value} {message}")):
            resolve_config(changed, training=False)
