"""ADE20K as in the training of the published models; `data.image_size` alone sets all sizes.

If none of the random crop's ten tries fits, the last one is taken; the published code tries an eleventh place.
Everything else is as published.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from omegaconf import OmegaConf

from convmae_seg.augmentation import PadToSize, PhotometricDistortion, ResizeKeepRatio
from convmae_seg.custom_data import DATA_OPTIONS
from convmae_seg.data import LabelMapMapper
from convmae_seg.evaluation import SemSegEvaluator
from convmae_seg.task import segmentation
from lazyrun.data.loader import build_train_loader

task = L(segmentation)()

data = dict(image_size=512, **dict.fromkeys(DATA_OPTIONS))

dataloader = OmegaConf.create()

dataloader.train = L(build_train_loader)(
    dataset=L(get_detection_dataset_dicts)(names="ade20k_sem_seg_train"),
    mapper=L(LabelMapMapper)(
        is_train=True,
        dataset_names="${..dataset.names}",
        augmentations=[
            # (2048, 512) times 0.5 to 2, keeping the ratio
            L(ResizeKeepRatio)(short_edge="${data.image_size}", aspect=4, scale_range=[0.5, 2.0]),
            L(T.RandomCrop_CategoryAreaConstraint)(
                crop_type="absolute",
                crop_size=["${data.image_size}", "${data.image_size}"],
                single_category_max_area=0.75,
                ignored_category=255,
            ),
            L(T.RandomFlip)(horizontal=True),
            L(PhotometricDistortion)(),
            L(PadToSize)(size="${data.image_size}", pixel_mean="${model.pixel_mean}"),
        ],
        image_format="${model.input_format}",
    ),
    total_batch_size=16,
    aspect_ratio_grouping=False,  # all crops have one size
    num_workers=4,
    seed="${train.seed}",
)

dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="ade20k_sem_seg_val"),
    mapper=L(LabelMapMapper)(
        is_train=False,
        dataset_names="${..dataset.names}",
        augmentations=[L(ResizeKeepRatio)(short_edge="${data.image_size}", aspect=4)],
        image_format="${model.input_format}",
    ),
    num_workers=4,
)

dataloader.evaluator = L(SemSegEvaluator)(dataset_name="${..test.dataset.names}")
