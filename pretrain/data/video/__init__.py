"""Clips from video files and folders of frames: decoding, frame sampling, lists, transforms, data sets."""
