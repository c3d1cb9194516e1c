"""Published or own segmentation weights for a segmentation model of another size or with other classes."""

from collections.abc import Mapping, Sequence
from math import isqrt

import torch
from timm.layers import gen_relative_position_index, resize_rel_pos_bias_table_simple

from pretrain.checkpoints.report import ConversionReport

__all__ = ["fit_segmentor"]

_TABLE, _INDEX, _COUNTER = "relative_position_bias_table", "relative_position_index", "num_batches_tracked"
_AUXILIARY = "auxiliary_head."


def fit_segmentor(
    state: dict[str, torch.Tensor], shapes: Mapping[str, Sequence[int]], report: ConversionReport
) -> None:
    """Changes a segmentation model's weights, in place, to fit another one as far as that is meaningful.

    Tables of relative position biases are resized bicubically. What follows from the sizes is made where it is missing
    or of another size. Classifiers of another number of classes, and an auxiliary head that the model does not have,
    are left out.

    Args:
        state: weights by name.
        shapes: every name and shape of the model that will load them.
        report: receives every change.
    """
    wanted, there = ([name for name in names if name.startswith(_AUXILIARY)] for names in (shapes, state))
    if wanted and not there:
        report.missing |= dict.fromkeys(wanted, "the file has no auxiliary head")
    _fit_tables(state, shapes, report)
    for name, shape in shapes.items():
        if name.endswith(_INDEX) and (name not in state or tuple(state[name].shape) != tuple(shape)):
            side = isqrt(shape[0])
            state[name] = gen_relative_position_index((side, side))
            report.made[name] = "follows from the size of the grid"
        elif name.endswith(_COUNTER) and name not in state and name not in report.missing:
            state[name] = torch.zeros((), dtype=torch.int64)
            report.made[name] = "counts batches from 0"
    for name in list(state):
        if ".conv_seg." in name and name in shapes and len(state[name]) != shapes[name][0]:
            classes = f"the file has {len(state[name])} classes, the model {shapes[name][0]}"
            _leave_out(name, state, report, classes)
            report.missing[name] = f"{classes}: trained from scratch"
        elif name in there and not wanted:
            _leave_out(name, state, report, "the model has no auxiliary head")


def _fit_tables(state: dict[str, torch.Tensor], shapes: Mapping[str, Sequence[int]], report: ConversionReport) -> None:
    resized = []
    for name, table in state.items():
        shape = tuple(shapes.get(name, table.shape))
        if name.endswith(_TABLE) and table.shape[0] != shape[0]:
            side = (isqrt(shape[0]) + 1) // 2
            new_shape = (shape[0], table.shape[1])
            state[name] = resize_rel_pos_bias_table_simple(table, (side, side), new_shape).contiguous()
            resized.append(f"{tuple(table.shape)} -> {new_shape}, bicubically")
    if resized:
        report.resized[f"{len(resized)} tables of relative position biases"] = resized[0]


def _leave_out(name: str, state: dict[str, torch.Tensor], report: ConversionReport, reason: str) -> None:
    del state[name]
    report.dropped[report.take_back(name)] = reason
