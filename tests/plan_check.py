"""`python tests/plan_check.py`: plans of tools/plan.py against steps run on this CPU, as a Markdown table."""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
B = "projects/ConvMAEDet/configs/COCO/mask_rcnn_vitdet_convmae_b_25ep.py"
TINY = "projects/ConvMAEDet/configs/shapes/mask_rcnn_vitdet_convmae_tiny.py"
MIMDET = "projects/MIMDet/configs/COCO/mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x.py"
UPERNET = "projects/ConvMAESeg/configs/ADE20K/upernet_convmae_base_512_slide_160k.py"
TINY_UPERNET = "projects/ConvMAESeg/configs/shapes/upernet_convmae_tiny.py"
BASE = ["--model=convmae_convvit_base_patch16"]


def cases() -> Iterator[tuple[str, Callable[[], Any]]]:
    sys.path.insert(0, str(REPO / "tests" / "support"))
    import planned

    yield "pretraining ConvMAE-B, 224 pixels, batch 2", lambda: planned.pretraining(BASE, 2, False)
    yield "the same, checkpointed", lambda: planned.pretraining(BASE, 2, True)
    video = ["--model=videoconvmae_convvit_tiny_patch16"]
    yield "pretraining VideoConvMAE tiny, batch 2", lambda: planned.pretraining(video, 2, False)
    for size in (224, 512, 1024):
        yield f"ConvMAE-B's detector, {size} pixels, batch 1", partial(planned.detector, B, [], size, 1)
    yield "MIMDet-B's detector, 512 pixels, batch 1", lambda: planned.detector(MIMDET, [], 512, 1)
    yield "ConvMAE-B's UperNet, 512 pixels, batch 2", lambda: planned.segmentor(UPERNET, [], 2)
    yield "tiny detector, 64 pixels, batch 8", lambda: planned.detector(TINY, [], 64, 8)
    yield "the same, batch 1", lambda: planned.detector(TINY, [], 64, 1)
    yield "tiny UperNet, batch 2", lambda: planned.segmentor(TINY_UPERNET, [], 2)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print("| step | saved, planned, MB | measured | error | peak, planned, MB | measured | error |")
    print("|---" * 7 + "|")
    for name, case in cases():
        plan, (saved, peak) = case()
        cells = [name]
        for expected, seen in ((plan.saved, saved), (plan.peak, peak)):
            cells += [f"{expected / 1e6:.1f}", f"{seen / 1e6:.1f}", f"{expected / seen - 1:+.1%}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
