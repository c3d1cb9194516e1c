"""Building models and loading their weights; layers that detectron2 lacks."""
