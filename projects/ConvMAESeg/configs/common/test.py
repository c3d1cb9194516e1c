"""Test-time augmentation, off by default, with the scales that are usual in segmentation."""

test = dict(tta=dict(enabled=False, scales=[0.5, 0.75, 1.0, 1.25, 1.5, 1.75], flip=True))
