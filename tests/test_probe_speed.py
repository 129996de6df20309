"""What a fit of the probes takes, measured on made-up features."""

from __future__ import annotations

import pytest
import torch

from topgraft.probe_speed import by_size, probe_speed

CLASSES = torch.arange(300) % 3
TASKS = {
    "classes": (CLASSES, 3),
    "labels": (torch.stack([CLASSES == 0, CLASSES > 0], 1), 2),
    "numbers": (torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 0),
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_measured_and_random_numbers_go_on_as_before(task):
    before = torch.random.get_rng_state()
    rate, beyond = probe_speed(*TASKS[task], [16, 64, 256])
    assert rate > 0
    assert beyond >= 0
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("seconds", [[3.0, 3.0], [9.0, 2.0]])
def test_a_disturbed_measurement_of_the_small_problem_does_not_make_multiply_adds_free(seconds):
    rate, beyond = by_size([1e6, 1e8], seconds)
    assert rate * 1e8 + beyond == pytest.approx(seconds[1])
    assert rate > 0


def test_one_width_and_very_few_examples_are_enough():
    rate, beyond = probe_speed(CLASSES[:4], 3, [7])
    assert rate >= 0
    assert beyond >= 0
