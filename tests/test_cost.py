from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topgraft.chain import Block
from topgraft.cost import FLOAT, PER_PARAMETER, Costs, forecast
from topgraft.workload import BACKWARD, Speed, Work, head_parameters

SPEED = Speed(
    example=0.02, decoding=0.01, cores=2, head=1e-9, fit=0.01, update=1e-9, length=5.0, held=1e9, batches=2e8
)
WORK = Work(examples=500, distinct=480, stored=0, validation=100, classes=4, folds=5, budget=600.0, epochs=10)


def block(index: int, macs: int, parameters: int, shape: tuple[int, ...]) -> Block:
    return Block(index, f"b{index}", "Block", shape, "map", parameters, macs, verified=True, difference=0.0)


BLOCKS = (
    block(1, 100, 10, (8, 16, 16)),
    block(2, 300, 50, (16, 8, 8)),
    block(3, 400, 200, (32, 4, 4)),
    block(4, 200, 900, (64, 2, 2)),
)
WIDTHS = (16, 32, 64, 128)
COSTS = Costs(BLOCKS, WIDTHS, SPEED, WORK)


def with_work(**changes: object) -> Costs:
    return replace(COSTS, work=replace(WORK, **changes))  # type: ignore[arg-type]  # any field


def test_a_pass_costs_what_its_distinct_examples_do():
    stage = COSTS.one_pass()
    assert stage.seconds == pytest.approx(480 * 0.02)
    assert stage.disk == 480 * sum(WIDTHS) * FLOAT
    assert stage.memory == 1e9 + 2e8 + 500 * sum(WIDTHS) * FLOAT


def test_what_is_stored_already_costs_nothing():
    half, all_of_it = with_work(stored=240).one_pass(), with_work(stored=480).one_pass()
    assert half.seconds == pytest.approx(COSTS.one_pass().seconds / 2)
    assert half.disk == COSTS.one_pass().disk / 2
    assert (all_of_it.seconds, all_of_it.disk) == (0, 0)
    assert COSTS.candidate(4, 2, stored=(480,)).storing == 0
    assert COSTS.candidate(4, 2, stored=(480,)).stored == 0


def test_storing_counts_the_conversion_of_what_is_frozen_unless_nothing_is_to_be_stored():
    converts = replace(COSTS, speed=replace(SPEED, converting=6.0))
    for freeze in (1, 2, 3):
        more = converts.storing(freeze).seconds - COSTS.storing(freeze).seconds
        assert more == pytest.approx(6.0 * freeze / 4)
    assert converts.storing(2, stored=480).seconds == 0
    assert converts.one_pass() == COSTS.one_pass()  # there the trial has converted


def test_views_that_an_earlier_training_stored_cost_nothing():
    fresh, one, every = (
        with_work(budget=1e6).candidate(4, 2, stored=stored, with_views=True)
        for stored in ((480, 0, 0, 0, 0), (480, 480, 0, 0, 0), (480, 480, 480, 480, 480))
    )
    assert [c.views for c in (fresh, one, every)] == [4, 4, 4]
    assert fresh.storing == pytest.approx(COSTS.storing_views(2, 4).seconds)
    assert one.storing == pytest.approx(fresh.storing * 3 / 4)
    assert one.stored == fresh.stored * 3 / 4 > 0
    assert (every.storing, every.stored) == (0, 0)


def test_views_are_as_many_as_there_is_time_and_disk_for():
    one = COSTS.storing_views(2, 1)
    assert one.seconds == pytest.approx(COSTS.storing(2).seconds)
    assert one.disk == COSTS.storing(2).disk
    fifth, quick = one.seconds / 0.2, with_work(epochs=0)
    times = (0.99 * fifth, 1.01 * fifth, 3.5 * fifth, 99 * fifth)
    assert [quick.views(4, 2, seconds) for seconds in times] == [0, 1, 3, 4]
    first = COSTS.storing(2).seconds + COSTS.training(4, 2, WORK.epochs) / 0.85
    assert [COSTS.views(4, 2, first + n * one.seconds) for n in (0.9, 1.1, 2.1)] == [0, 1, 2]
    large = replace(COSTS, work=replace(WORK, distinct=int(3.5 * 4e9 * 480 / one.disk / 7)))
    assert large.views(4, 2, 1e12) == 1  # with the pictures themselves, two of half the disk each
    plain, more = (COSTS.candidate(4, 2, with_views=with_views) for with_views in (False, True))
    assert (plain.views, more.views) == (0, 4)
    assert more.stored == pytest.approx(5 * plain.stored)
    assert more.storing == pytest.approx(5 * plain.storing)
    assert COSTS.candidate(4, 4, with_views=True).views == 0


def test_memory_is_not_told_where_the_system_does_not_tell():
    unknown = replace(COSTS, speed=replace(SPEED, held=0.0, batches=0.0))
    assert unknown.one_pass().memory is None
    assert forecast(unknown).most_memory is None


def test_the_chain_alone_is_the_pass_without_decoding():
    assert SPEED.chain == pytest.approx(0.02 - 0.01 / 2)
    assert Speed(example=0.02, decoding=1.0).chain == pytest.approx(0.002)  # never less than a tenth


def test_shares_of_the_work_add_up_and_are_by_count_where_none_was_counted():
    parts = [COSTS.share(i, i + 1) for i in range(4)]
    assert parts == pytest.approx([0.1, 0.3, 0.4, 0.2])
    assert COSTS.share(0, 4) == pytest.approx(1)
    none = replace(COSTS, blocks=tuple(replace(b, macs=0) for b in BLOCKS))
    assert none.share(1, 4) == pytest.approx(0.75)


def test_an_unmeasured_backward_pass_counts_as_two_forward_ones():
    assert BACKWARD == 2
    assert SPEED.step == pytest.approx(3 * SPEED.chain)
    assert replace(SPEED, training=0.7).step == 0.7
    trained = COSTS.trained_parameters(4, 2)
    assert COSTS.step(4, 2, live=False) == pytest.approx(0.6 * 3 * SPEED.chain + trained * 1e-9 / 32)


def test_a_training_adds_up():
    epoch = 400 * COSTS.step(4, 2, live=False) + 100 * 0.6 * SPEED.chain
    assert COSTS.epoch(4, 2) == pytest.approx(epoch)
    refit = 3 * 400 * COSTS.step(4, 2, live=False)
    assert COSTS.training(4, 2, 3) == pytest.approx(100 * 0.6 * SPEED.chain + 3 * epoch + refit)
    assert with_work(refits=0).training(4, 2, 3) == pytest.approx(COSTS.training(4, 2, 3) - refit)
    assert with_work(refits=3).training(4, 2, 3) == pytest.approx(COSTS.training(4, 2, 3) + 2 * refit)
    assert COSTS.training(4, 2, 0) == 0


def test_decoding_each_example_in_each_epoch_costs_more():
    live, read = COSTS.candidate(4, 2, live=True), COSTS.candidate(4, 2)
    assert (live.storing, live.stored) == (0, 0)
    assert live.epoch == pytest.approx(read.epoch + 500 * (0.01 + 0.4 * SPEED.chain))


def test_a_candidate_in_bytes_and_parameters():
    found = COSTS.candidate(3, 2)
    assert found.trained_parameters == 200 + head_parameters(64, 4)
    assert found.optimizer == found.trained_parameters * FLOAT * PER_PARAMETER
    assert found.model == FLOAT * (10 + 50 + 200 + head_parameters(64, 4))
    assert found.stored == 480 * 16 * 8 * 8 * 4
    assert with_work(precision="bf16").candidate(3, 2).stored == found.stored / 2


def test_states_of_sequences_take_the_length_that_was_measured_and_all_activations_count():
    blocks = (*BLOCKS[:2], replace(BLOCKS[2], shape=(-1, 32), others=((7,),)), BLOCKS[3])
    assert replace(COSTS, blocks=blocks).bytes_of_state(3) == (5 * 32 + 7) * 4


def test_where_everything_is_frozen_nothing_trains_unless_the_head_has_layers():
    frozen = COSTS.candidate(4, 4)
    assert (frozen.epoch, frozen.training, frozen.epochs, frozen.storing, frozen.stored) == (0, 0, 0, 0, 0)
    head = with_work(hidden=(8,), head_trains=True).candidate(4, 4)
    assert head.training > 0
    assert head.trained_parameters == head_parameters(128, 4, (8,))


@pytest.mark.parametrize(("budget", "asked", "epochs"), [(600, False, 10), (35, False, 0), (18, True, 0)])
def test_what_the_budget_allows(budget: float, asked: bool, epochs: int) -> None:
    assert with_work(budget=budget).candidate(4, 0, live=True, asked=asked).affordable == epochs


def test_time_that_is_gone_is_not_planned_with():
    between = [with_work(budget=b).candidate(4, 2).affordable for b in range(10, 300, 10)]
    assert between == sorted(between)
    assert set(between) >= {0, 2, 10}
    gone = with_work(budget=300, spent=200).candidate(4, 2)
    assert gone.affordable == with_work(budget=100).candidate(4, 2).affordable


@given(st.integers(1, 4), st.data())
def test_freezing_more_never_trains_more(keep: int, data: st.DataObject) -> None:
    more = data.draw(st.integers(1, keep))
    fewer = data.draw(st.integers(0, more - 1))
    a, b = COSTS.candidate(keep, fewer), COSTS.candidate(keep, more)
    assert a.epoch > b.epoch or b.epochs == 0
    assert a.trained_parameters > b.trained_parameters
    assert a.optimizer > b.optimizer
    assert a.model == b.model
    assert COSTS.storing(more).seconds > COSTS.storing(fewer).seconds if fewer else True


@given(st.integers(1, 4), st.integers(0, 3), st.integers(2, 6))
def test_seconds_and_bytes_grow_with_the_examples(keep: int, freeze: int, times: int) -> None:
    freeze = min(freeze, keep)
    larger = with_work(examples=500 * times, distinct=480 * times, validation=100 * times)
    assert larger.one_pass().seconds == pytest.approx(times * COSTS.one_pass().seconds)
    assert larger.one_pass().disk == pytest.approx(times * COSTS.one_pass().disk)
    assert larger.probes().seconds > COSTS.probes().seconds
    one, many = COSTS.candidate(keep, freeze), larger.candidate(keep, freeze)
    for name in ("storing", "stored", "epoch", "training"):
        assert getattr(many, name) == pytest.approx(times * getattr(one, name))
    assert many.optimizer == one.optimizer


def test_a_forecast_is_plain_json_of_all_its_parts():
    told = forecast(COSTS, [COSTS.candidate(4, 2, asked=True)])
    document = told.to_json()
    assert document["pass"]["seconds"] == told.one_pass.seconds
    assert document["probes"]["seconds"] == told.probes.seconds > 0
    assert document["candidates"][0]["freeze"] == 2
    assert document["candidates"][0]["asked"] is True
    assert (document["examples"], document["distinct"], document["stored"]) == (500, 480, 0)
