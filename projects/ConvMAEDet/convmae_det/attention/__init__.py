"""Attention of ConvViT detectors: relative positions of rows and columns, or tables of biases."""

from convmae_det.attention.rel_pos import RelPosAttention, attention_function, relative_positions
from convmae_det.attention.table import RelPosBiasTable, TableAttention, table_attention

__all__ = [
    "RelPosAttention",
    "RelPosBiasTable",
    "TableAttention",
    "attention_function",
    "relative_positions",
    "table_attention",
]
