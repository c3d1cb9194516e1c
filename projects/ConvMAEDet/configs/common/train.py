"""Training options: detectron2's, with those that `tools/lazyconfig_train_net.py` adds to them."""

from lazyrun.config.loading import default_train_options

train = default_train_options()
