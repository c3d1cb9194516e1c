"""Our pretraining step against the published computation."""
