"""What each of two gloo processes does in tests/mimdet/test_sync_norms.py: `two_processes.py RANK FOLDER`."""

import sys
from pathlib import Path

import torch
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec, get_norm
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from lazyrun.config.loading import load_config
from lazyrun.modeling.norms import PlainSyncBatchNorm

CONFIG = "projects/MIMDet/configs/COCO/mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x.py"
TINY = dict(img_size=64, embed_dim=16, depth=1, num_heads=2, decoder_embed_dim=8, decoder_depth=1, decoder_num_heads=2)
SHAPES = ((2, 3, 4, 6), (1, 3, 8, 2))
REGIONS = (2, 1)
"""Regions that the heads of each process get."""

EMPTY = 1
"""The process whose images have no objects: its mask head gets no input."""


def norm_step(rank: int) -> dict[str, torch.Tensor]:
    """A PlainSyncBatchNorm on maps of another size in each process."""
    torch.manual_seed(0)
    maps, weights = ([torch.randn(shape) for shape in SHAPES] for _ in range(2))
    norm = PlainSyncBatchNorm(3)
    x = maps[rank].requires_grad_()
    out = norm(x)
    (out * weights[rank]).sum().backward()
    return {"out": out.detach(), "grad": x.grad, "running_mean": norm.running_mean, "running_var": norm.running_var}


def make_regions() -> list[torch.Tensor]:
    """For each process bfloat16 maps `(B, 3, 4, 4)` whose values are far from 0 for how little they differ."""
    generator = torch.Generator().manual_seed(0)
    return [(3 + 0.1 * torch.randn(count, 3, 4, 4, generator=generator)).bfloat16() for count in REGIONS]


def head_norm_step(rank: int) -> dict[str, torch.Tensor]:
    """The mask head's norm in bfloat16, on regions and then on none in either process."""
    norm = get_norm(load_config(CONFIG, []).model.roi_heads.mask_head.conv_norm, 3)
    out = norm(make_regions()[rank])
    running = {"running_mean": norm.running_mean.clone(), "running_var": norm.running_var.clone()}
    norm(torch.zeros(0, 3, 4, 4))
    return {"out": out.detach(), **running, "later_mean": norm.running_mean, "later_var": norm.running_var}


def make_batch(rank: int) -> list[dict]:
    generator = torch.Generator().manual_seed(rank)
    image = torch.randint(0, 256, (3, 64, 64 + 32 * rank), generator=generator, dtype=torch.uint8)
    boxes = torch.tensor([] if rank == EMPTY else [[8.0, 8.0, 40.0, 48.0]]).reshape(-1, 4)
    masks = torch.ones(len(boxes), *image.shape[1:], dtype=torch.bool)
    instances = Instances(tuple(image.shape[1:]), gt_boxes=Boxes(boxes), gt_masks=BitMasks(masks))
    instances.gt_classes = torch.zeros(len(boxes), dtype=torch.int64)
    return [{"image": image, "instances": instances}]


def detector_step(rank: int) -> dict[str, torch.Tensor]:
    """One training step of a MIMDet with its published heads."""
    cfg = load_config(
        CONFIG,
        [
            "model.roi_heads.batch_size_per_image=8",
            "model.proposal_generator.post_nms_topk=[50,50]",
            "model.roi_heads.box_head.fc_dims=[16]",
        ],
    )
    cfg.model.backbone.bottom_up.update(TINY)
    cfg.model.roi_heads.box_predictor.input_shape = ShapeSpec(channels=16)
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    head_inputs = []
    model.roi_heads.mask_head.mask_fcn1.register_forward_hook(lambda _, x, __: head_inputs.append(len(x[0])))
    model = DistributedDataParallel(model, broadcast_buffers=False)
    with EventStorage():
        losses = model(make_batch(rank))
    sum(losses.values()).backward()
    norms = {n: b for n, b in model.module.named_buffers() if "running" in n}
    gradients = {f"grad.{n}": p.grad for n, p in model.module.named_parameters() if p.requires_grad}
    return {**norms, **gradients, "mask_head_inputs": torch.tensor(head_inputs), "loss": sum(losses.values()).detach()}


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    comm.create_local_process_group(2)
    steps = {"norm": norm_step, "head_norm": head_norm_step, "detector": detector_step}
    torch.save({name: step(rank) for name, step in steps.items()}, folder / f"{rank}.pth")
    distributed.destroy_process_group()
