"""One run from its arguments."""

from argparse import Namespace

import pytest
import torch
from shapes import CONFIG, REPO, SMALL, make_shapes
from soaking import sandbox

from lazyrun.engine.run import run

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="forked processes cannot use CUDA")


@pytest.mark.parametrize("seed", [2**32 - 1, 2**62])
def test_seeds_beyond_numpys(tmp_path, seed):
    """A process of its own, as the run sets up logging and seeds all generators."""
    data = make_shapes(tmp_path, train=2, val=1) / "shapes"
    given = [f"data.{split}_{kind}" for split in ("train", "val") for kind in ("json", "images")]
    found = [data / part for s in ("train", "val") for part in (f"annotations/instances_{s}.json", s)]
    options = [*SMALL, f"train.output_dir={tmp_path / 'run'}", f"train.seed={seed}", "train.check_data=false"]
    options += [f"{key}={path}" for key, path in zip(given, found, strict=True)]
    args = Namespace(config_file=str(REPO / CONFIG), opts=options, resume=False, eval_only=False, dry_run=True)
    ended = sandbox.run(lambda: run(args))
    assert ended.code == 0 and ended.fault is None, ended.output
    assert "Dry run: data, model, optimizer and initial weights are ready" in ended.output
