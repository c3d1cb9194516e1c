"""Evaluations in the middle of a training."""

from omegaconf import OmegaConf

from lazyrun.engine import evaluate as module


def test_a_metric_that_is_never_measured_is_told(monkeypatch, caplog):
    monkeypatch.setattr(module, "evaluate", lambda cfg, model: {"bbox": {"AP": 1.0}})
    for metric, told in (("bbox/AP", False), ("bbox/ap", True)):
        with caplog.at_level("WARNING"):
            module.evaluate_in_training(OmegaConf.create({"train": {"best_metric": metric}}), None)
        assert ("train.best_metric=bbox/ap is not among the metrics" in caplog.text) is told
