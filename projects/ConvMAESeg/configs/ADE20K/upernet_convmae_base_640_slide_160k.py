"""UperNet with ConvMAE-B on ADE20K at 640 pixels: a grid of 40×40 patches, windows of 640 every 426 pixels.

python tools/lazyconfig_train_net.py --num-gpus 8 \
    --config-file projects/ConvMAESeg/configs/ADE20K/upernet_convmae_base_640_slide_160k.py \
    train.init_checkpoint=CONVMAE_BASE_CHECKPOINT

Not measured. The recipe is that of 512 pixels.
"""

from .upernet_convmae_base_512_slide_160k import data, dataloader, lr_multiplier, model, optimizer, task, test, train

data.image_size = 640
