"""COCO annotation files, read and cleaned once, so that the check, training and evaluation see the same content."""
