"""A backward pass node by node in Python.

PyTorch's engine has a thread and a stream for each GPU, so that it refuses tensors of a fake one. Nodes can be called
from Python, though. They are taken here in the engine's order, and each is let go of as soon as it has been run, so
that the tensors it kept are freed when the engine would free them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.autograd.function import BackwardCFunction

__all__ = ["run_backward", "run_node"]

Node = Any  # torch.autograd.graph.Node declares neither `_input_metadata` nor that it can be called


def run_node(node: Node, grads: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """Gradients of one node's inputs, in the order of its `next_functions`, from those of its outputs."""
    if not isinstance(node, BackwardCFunction):
        out = node(*grads)
        return list(out) if isinstance(out, tuple) else [out]
    out = node.apply(*grads)
    results = out if isinstance(out, tuple) else (out,)
    # A function of ours gives one result for each of its arguments, edges are of tensors alone.
    needed = iter([grad for grad, needs in zip(results, node.needs_input_grad, strict=True) if needs])
    return [next(needed) if following is not None else None for following, _ in node.next_functions]


def _dependencies(root: Node) -> dict[Node, int]:
    """How many edges lead to each node."""
    counts, found = {root: 0}, [root]
    while found:
        for node, _ in found.pop().next_functions:
            if node is None:
                continue
            if node not in counts:
                counts[node] = 0
                found.append(node)
            counts[node] += 1
    return counts


def _as_forward(grad: torch.Tensor, metadata: Any) -> torch.Tensor:
    """A gradient in shape and type of what it belongs to."""
    if tuple(grad.shape) != tuple(metadata.shape):
        grad = grad.sum_to_size(metadata.shape)
    return grad if grad.dtype == metadata.dtype else grad.to(metadata.dtype)


def run_backward(forward: Callable[[], torch.Tensor], keep_gradients: bool = True) -> None:
    """Accumulates the gradients of `forward()`, a scalar, in the parameters' `grad`.

    Args:
        forward: called once; nobody else must hold its result, which holds what the forward pass has kept.
        keep_gradients: False lets go of each parameter's gradient as soon as it is there.
    """
    with _keeping_functions() as keepers:
        waiting, buffers, ready = _start(forward())
    with torch.no_grad():
        while ready:
            ready.sort(key=lambda node: node._sequence_nr())
            node = ready.pop()
            grads = buffers.pop(node)
            del waiting[node]
            if hasattr(node, "variable"):  # AccumulateGrad
                parameter = node.variable
                if keep_gradients:
                    parameter.grad = grads[0] if parameter.grad is None else parameter.grad + grads[0]
                del node, grads, parameter
                continue
            inputs = [grads.get(i) for i in range(len(node._input_metadata))]
            del grads
            outputs, edges = run_node(node, inputs), node.next_functions
            keepers.pop(node, None)
            del node, inputs
            for i, (following, number) in enumerate(edges):
                if following is None:
                    continue
                _add(buffers.setdefault(following, {}), number, outputs[i], following)
                outputs[i] = None
                waiting[following] -= 1
                if not waiting[following]:
                    ready.append(following)
            del edges, outputs, following
    assert not buffers, "every node was reached"


@contextmanager
def _keeping_functions() -> Iterator[dict[Node, Node]]:
    """Maps the nodes of hand-written functions that run within to nodes of PyTorch's own that keep them alive.

    Python's reference to a node of PyTorch's own keeps it, and all that it leads to. One to a node of an
    `autograd.Function` does not before PyTorch 2.13: its tensors go with the last node that leads to it.
    """
    keepers: dict[Node, Node] = {}
    apply = torch.autograd.Function.__dict__["apply"]

    def kept(cls: type[torch.autograd.Function], *args: Any) -> Any:
        out = apply.__get__(None, cls)(*args)
        for tensor in out if isinstance(out, tuple) else (out,):
            if isinstance(tensor, torch.Tensor) and isinstance(tensor.grad_fn, BackwardCFunction):
                keepers[tensor.grad_fn] = tensor.view_as(tensor).grad_fn
        return out

    with mock.patch.object(torch.autograd.Function, "apply", classmethod(kept)):
        yield keepers


def _start(loss: torch.Tensor) -> tuple[dict[Node, int], dict[Node, dict[int, torch.Tensor]], list[Node]]:
    root = loss.grad_fn
    assert root is not None, "the loss depends on no parameter"
    return _dependencies(root), {root: {0: torch.ones_like(loss)}}, [root]


def _add(buffer: dict[int, torch.Tensor], number: int, grad: torch.Tensor | None, node: Node) -> None:
    """Adds a gradient to those of a node's outputs."""
    if grad is None:
        return
    grad = _as_forward(grad, node._input_metadata[number])
    buffer[number] = buffer[number] + grad if number in buffer else grad
