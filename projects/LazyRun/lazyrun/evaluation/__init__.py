"""COCO metrics and the errors behind them."""
