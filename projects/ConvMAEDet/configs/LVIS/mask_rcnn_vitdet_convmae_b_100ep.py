"""ViTDet Mask R-CNN with ConvMAE-B on LVIS v1, after ViTDet's LVIS recipe (arXiv:2203.16527).

    python tools/lazyconfig_train_net.py --num-gpus 64 --num-machines 8 ... \
        --config-file projects/ConvMAEDet/configs/LVIS/mask_rcnn_vitdet_convmae_b_100ep.py \
        train.init_checkpoint=CONVMAE_BASE_CHECKPOINT

Images with rare classes are repeated (repeat-factor sampling), and only a sample of the absent classes enters the
classification loss (federated loss). Not published and not measured here. The evaluator needs the package `lvis`.
"""

from detectron2.config import LazyCall as L
from detectron2.evaluation import LVISEvaluator

from lazyrun.config.schedule import LVIS_TRAIN_IMAGES, iterations, multistep_schedule
from lazyrun.data.loader import FederatedLossWeights

from ..COCO.mask_rcnn_vitdet_convmae_b_100ep import data, dataloader, lr_multiplier, model, optimizer, train

dataloader.train.dataset.names = "lvis_v1_train"
dataloader.train.update(total_batch_size=64, repeat_threshold=0.001)
dataloader.test.dataset.names = "lvis_v1_val"
dataloader.evaluator = L(LVISEvaluator)(dataset_name="${..test.dataset.names}", max_dets_per_image=300)

model.roi_heads.num_classes = 1203
model.roi_heads.box_predictor.update(
    test_score_thresh=0.02,
    test_topk_per_image=300,
    use_sigmoid_ce=True,
    use_fed_loss=True,
    get_fed_loss_cls_weights=L(FederatedLossWeights)(
        dataset_names="${dataloader.train.dataset.names}", freq_weight_power=0.5
    ),
)

optimizer.lr = 2e-4
train.max_iter = iterations(epochs=100, images=LVIS_TRAIN_IMAGES, batch_size=64)
train.eval_period = 30000
lr_multiplier = multistep_schedule(train.max_iter, warmup_iter=250)
