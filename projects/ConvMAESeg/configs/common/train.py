"""Training options: detectron2's and those that LazyRun adds."""

from lazyrun.config.loading import default_train_options

train = default_train_options()
train.best_metric = "sem_seg/mIoU"
