"""Plans as text and as rows of a Markdown table."""

from collections.abc import Sequence
from dataclasses import dataclass

from pretrain.common.planning.plan import Cost, Plan, largest_fitting

__all__ = ["TABLE_HEAD", "Assumptions", "report", "table_row"]

PRECISIONS = {"off": "fp32", "bf16": "bf16", "fp16": "fp16"}
CARDS = (16, 24, 48, 80)
"""Memory of GPUs, GB."""

TABLE_HEAD = (
    "| | M parameters | batch per GPU | saved, GB | peak, GB | checkpointed: saved | peak | fits "
    + " / ".join(map(str, CARDS))
    + " GB | checkpointed | TFLOPs per step | steps | GPU hours |\n"
    + "|---" * 12
    + "|"
)


@dataclass(frozen=True)
class Assumptions:
    """What a plan cannot know.

    Attributes:
        tflops: a GPU's peak in the precision of the training.
        utilisation: the share of it that a training reaches.
        margin: share of a GPU's memory that stays free of tensors.
    """

    tflops: float
    utilisation: float
    margin: float

    @property
    def flops_per_second(self) -> float:
        return self.tflops * 1e12 * self.utilisation


def _gb(size: float) -> str:
    return f"{size / 1e9:#.3g}".rstrip(".")


def _checkpointing(cost: Cost) -> str:
    return {None: "-", False: "off", True: "on"}[cost.checkpointed]


def _fits(plan: Plan, cost: Cost, assumptions: Assumptions) -> list[int]:
    return [largest_fitting(plan, cost, gb * 1e9 * (1 - assumptions.margin)) for gb in CARDS]


def report(plan: Plan, batch_sizes: Sequence[int], assumptions: Assumptions) -> str:
    """All of a plan, several lines with two Markdown tables."""
    training = plan.training
    lines = [
        f"{training.name}: {plan.parameters / 1e6:.1f} M parameters, {training.gpus} GPU(s) of {training.batch_size} "
        f"{training.noun}(s), {training.micro_batches} forward pass(es) a step",
        "",
        f"GB {'in all' if plan.sharing else 'on each GPU at any batch size'}: parameters and buffers "
        f"{_gb(plan.parameter_bytes)}, gradients {_gb(plan.gradients)}, optimizer {_gb(plan.optimizer)}, DDP's buckets "
        f"{_gb(plan.buckets)}",
        *_sharing_lines(plan),
        "",
        f"| precision | checkpointing | {training.noun}s | saved activations, GB | peak, GB |",
        "|---" * 5 + "|",
    ]
    lines += [
        f"| {PRECISIONS[cost.amp]} | {_checkpointing(cost)} | {n} | {_gb(cost.saved(n))} | {_gb(plan.peak(cost, n))} |"
        for cost in plan.costs
        for n in batch_sizes
    ]
    lines += ["", f"| precision | checkpointing | largest batch in {CARDS[0]} GB | ", "|---" * (len(CARDS) + 2) + "|"]
    lines[-2] += " | ".join(f"{gb} GB" for gb in CARDS[1:]) + " | "
    lines[-2] = lines[-2].strip()
    for cost in plan.costs:
        fits = " | ".join(map(str, _fits(plan, cost, assumptions)))
        lines.append(f"| {PRECISIONS[cost.amp]} | {_checkpointing(cost)} | {fits} |")
    cost = plan.costs[-1] if all(c.checkpointed for c in plan.costs) else _plain(plan)
    lines += [
        "",
        f"{training.steps} steps of {_step_tflops(plan, cost):.3g} TFLOPs on each GPU: "
        f"{plan.gpu_hours(cost, assumptions.flops_per_second):.3g} GPU hours at {assumptions.utilisation:.0%} of "
        f"{assumptions.tflops:g} TFLOP/s, {'with' if cost.checkpointed else 'without'} checkpointing; two FLOPs for a "
        "multiply-add, forward and backward.",
        f"{assumptions.margin:.0%} of each GPU is left to its context, workspaces and fragmentation.",
    ]
    return "\n".join(lines)


def _sharing_lines(plan: Plan) -> list[str]:
    if plan.sharing is None:
        return []
    return [
        f"GB on each GPU at any batch size: its share {_gb(plan.share)}; for a time {_gb(plan.sharing.working)}, of "
        f"{_gb(plan.sharing.outside)} of weights outside of blocks and {_gb(plan.sharing.largest)} of the largest block"
    ]


def _plain(plan: Plan) -> Cost:
    """Of the last precision, the one without checkpointing."""
    return [cost for cost in plan.costs if not cost.checkpointed][-1]


def _step_tflops(plan: Plan, cost: Cost) -> float:
    return plan.training.micro_batches * cost.flops(plan.training.batch_size) / 1e12


def table_row(plan: Plan, assumptions: Assumptions) -> str:
    """One line below :data:`TABLE_HEAD`, at the recipe's batch size in the plan's last precision."""
    plain, n = _plain(plan), plan.training.batch_size
    cells = [f"`{plan.training.name}`", f"{plan.parameters / 1e6:.1f}", n, _gb(plain.saved(n))]
    cells.append(_gb(plan.peak(plain, n)))
    recomputed = next((cost for cost in plan.costs if cost.checkpointed and cost.amp == plain.amp), None)
    cells += [_gb(recomputed.saved(n)), _gb(plan.peak(recomputed, n))] if recomputed else ["-", "-"]
    cells.append(" / ".join(map(str, _fits(plan, plain, assumptions))))
    cells.append(" / ".join(map(str, _fits(plan, recomputed, assumptions))) if recomputed else "-")
    hours = plan.gpu_hours(plain, assumptions.flops_per_second)
    cells += [
        f"{_step_tflops(plan, plain):.3g}",
        plan.training.steps,
        f"{hours:.0f}" if hours >= 10 else f"{hours:.2g}",
    ]
    return f"| {' | '.join(map(str, cells))} |"
