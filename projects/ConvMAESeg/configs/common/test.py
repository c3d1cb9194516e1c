"""Test-time augmentation, off by default; the scales are those of the field."""

test = dict(tta=dict(enabled=False, scales=[0.5, 0.75, 1.0, 1.25, 1.5, 1.75], flip=True))
