"""Schedules keep their shape in a run of another length."""

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler

from lazyrun.config.schedule import cosine_schedule, fit_schedule, linear_schedule, multistep_schedule


def test_fitted_schedule_is_the_one_written_for_that_length():
    schedule, expected = multistep_schedule(27000, warmup_iter=90), multistep_schedule(9000, warmup_iter=90)
    fit_schedule(schedule, 9000)
    assert schedule.scheduler == expected.scheduler
    assert schedule.warmup_length == pytest.approx(expected.warmup_length)


@pytest.mark.parametrize(
    ("written", "fraction", "max_iter", "warmup"),
    [(250, 0.00136, 500, 50), (100, 0.125, 80, 10), (250, 0.00136, 10, 1), (5, 0.5, 20, 5)],
)
def test_short_runs_warm_up_over_a_tenth_at_most_or_their_own_fraction(written, fraction, max_iter, warmup):
    schedule = multistep_schedule(round(written / fraction), warmup_iter=written)
    fit_schedule(schedule, max_iter)
    assert schedule.warmup_length * max_iter == pytest.approx(warmup, rel=1e-3)


@pytest.mark.parametrize("max_iter", [1, 2, 5, 12])
def test_runs_too_short_for_their_milestones_still_decay_where_they_can(max_iter):
    schedule = multistep_schedule(800, warmup_iter=8)
    fit_schedule(schedule, max_iter)
    multiplier = instantiate(schedule)
    assert [round(multiplier(where), 4) for where in (0.5, 0.9, 0.97)] == [1.0, 0.1, 0.01]


@pytest.mark.parametrize("make", [linear_schedule, cosine_schedule])
@pytest.mark.parametrize(("max_iter", "warmup"), [(16_000, 1500), (320_000, 1500), (5000, 500)])
def test_smooth_schedules_keep_the_iterations_of_their_warm_up(make, max_iter, warmup):
    schedule = make(160_000, warmup_iter=1500)
    for _ in range(2):  # fitting twice changes nothing
        fit_schedule(schedule, max_iter)
        assert schedule.num_updates == max_iter and schedule.warmup_length * max_iter == pytest.approx(warmup)
    multiplier, expected = instantiate(schedule), instantiate(make(max_iter, warmup_iter=warmup))
    for where in (0.0, 0.05, 0.5, 1.0):
        assert multiplier(where) == pytest.approx(expected(where))


def test_a_schedule_without_iterations_stays():
    cosine = L(WarmupParamScheduler)(
        scheduler=L(CosineParamScheduler)(start_value=1, end_value=0), warmup_length=0.01, warmup_factor=0.1
    )
    before = cosine.copy()
    fit_schedule(cosine, 50)
    assert cosine == before
