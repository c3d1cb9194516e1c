"""AdamW for the MIMDet family: no weight decay on norms, positions and tables of relative position biases."""

from detectron2 import model_zoo

optimizer = model_zoo.get_config("common/optim.py").AdamW
optimizer.lr = 8e-5
optimizer.weight_decay = 0.1
optimizer.params.overrides = {
    "pos_embed": {"weight_decay": 0.0},
    "relative_position_bias_table": {"weight_decay": 0.0},
}
