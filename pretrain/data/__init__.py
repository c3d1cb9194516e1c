"""Images from disk to batches: readers, data sets, transforms, samplers, labels."""
