"""A look at the sets that a training would be given: what they hold, what is odd, and whether it would be refused."""

from dataclasses import dataclass, field
from typing import Any

from lazyrun.data.coco.content import CocoContent, clean, load
from lazyrun.data.coco.findings import Findings
from lazyrun.data.coco_check import DatasetReport, check_content, check_not_empty
from lazyrun.data.corrupt import MAX_CORRUPT
from lazyrun.data.formats import AnnotatedSet
from lazyrun.data.inspection import WORKERS
from lazyrun.data.inspection.figures import SetFigures
from lazyrun.data.inspection.model_input import ModelInput
from lazyrun.data.inspection.objects import ObjectCase, findings_of, odd_objects
from lazyrun.data.inspection.oddities import odd_images, same_images, unnamed_images

__all__ = ["TRAINING", "Look", "SetLook", "look_at"]

TRAINING, EVALUATION = "training", "evaluation"


@dataclass
class SetLook:
    """One set.

    Attributes:
        source: what was read.
        content: its cleaned content.
        report: counts, faults, and the facts of its images.
        faults: what training or evaluation would be refused for.
        mended: what is changed or left out.
        odd: what is taken as it is.
        cases: odd objects by kind, the worst first.
    """

    source: AnnotatedSet
    content: CocoContent
    report: DatasetReport
    faults: Findings
    mended: Findings = field(default_factory=Findings)
    odd: Findings = field(default_factory=Findings)
    cases: dict[str, list[ObjectCase]] = field(default_factory=dict)


@dataclass
class Look:
    """The sets of a training.

    Attributes:
        sets: by what they are for.
        model: what sizes are compared with.
        refusals: sentences on why the training command would refuse; empty if it would not.
        shared: files that are in several sets, several times in one, or in none.
    """

    sets: dict[str, SetLook]
    model: ModelInput
    refusals: list[str]
    shared: Findings

    @property
    def figures(self) -> dict[str, SetFigures]:
        """Numbers of the sets whose images were opened."""
        return {name: s.report.figures for name, s in self.sets.items() if s.report.figures is not None}


def look_at(
    train: AnnotatedSet,
    val: AnnotatedSet | None = None,
    *,
    model: ModelInput | None = None,
    mask_head: bool = True,
    max_corrupt: float = MAX_CORRUPT,
    workers: int = WORKERS,
) -> Look:
    """Opens all images of the sets and gathers everything that is odd.

    Args:
        train, val: as they are read, maybe with faults.
        model: what sizes are compared with; by default the configs for COCO.
        mask_head: the model has one, so that all objects of a set need a mask if any has one.
        max_corrupt: share of the images that may be left out.
        workers: threads that open images.
    """
    model = model or ModelInput()
    sets, masks = {}, mask_head
    for name, source in ((TRAINING, train), (EVALUATION, val)):
        if source is not None:  # without masks in training there are none in evaluation
            masks = masks and any(a.get("segmentation") for a in source.annotations if not a.get("iscrowd"))
            options = dict(masks=masks, max_corrupt=max_corrupt, workers=workers)
            sets[name] = _look(source, name, model, options)
    refusals = [f"{name}: {sentence}" for name, look in sets.items() for sentence in look.faults.sentences()]
    shared = same_images({name: look.report.facts for name, look in sets.items()})
    shared.update(unnamed_images(str(s.source.root / n) for s in sets.values() for n in s.report.facts))
    return Look(sets, model, refusals, shared)


def _look(source: AnnotatedSet, name: str, model: ModelInput, options: dict[str, Any]) -> SetLook:
    content = _content(source)
    faults = Findings()
    faults.update(content.faults)
    for sentence in () if faults else source.faults:  # of COCO JSON these are the same faults
        faults.say(sentence)
    if faults:
        return SetLook(source, content, DatasetReport(name), faults, content.mended)
    report = check_content(name, content, source.path, source.root, training=name == TRAINING, **options)
    if name == EVALUATION:
        check_not_empty(report, "evaluate on")
    look = SetLook(source, content, report, report.found)
    for findings in (content.mended, content.degenerate, report.skipped):
        look.mended.update(findings)
    look.cases = odd_objects(content.images, content.annotations, model)
    for findings in (odd_images(report.facts), findings_of(look.cases)):
        look.odd.update(findings)
    if report.figures is not None:
        bare = [c for c, count in report.figures.objects_of.items() if not count]
        look.odd.add("classes without an object", bare, "nothing of them is learnt or measured.")
    return look


def _content(source: AnnotatedSet) -> CocoContent:
    if source.json_file is not None:
        return load(source.json_file)
    content = clean(source.images, source.annotations, source.categories)
    content.mended.update(source.mended)
    return content
