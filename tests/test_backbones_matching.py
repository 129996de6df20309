from __future__ import annotations

import pytest
import torch
from torch import nn

from topgraft.backbones.matching import allowed_names, digest_of, fill, match, report_on
from topgraft.backbones.types import Filled
from topgraft.backbones.weights import Weights
from topgraft.errors import TopgraftError


def network(width: int = 8) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, width), nn.Linear(width, 3)
    )


def weights(tensors: dict[str, torch.Tensor], *, ordered: bool = True) -> Weights:
    return Weights(tensors, "a test", ordered)


def given(seed: int = 1, **options: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        n: torch.rand_like(t) if t.is_floating_point() else t + 7
        for n, t in network(**options).state_dict().items()
    }


KEPT = [n for n in network().state_dict() if not n.startswith("3.")]


def report(filled: Filled, net: nn.Module, **options: object):
    return report_on(net, filled, KEPT, source="own", **options)


def test_by_name_everything_arrives_with_its_bits():
    net, tensors = network(), given()
    told = report(fill(net, weights(tensors)), net)
    assert all(torch.equal(t, tensors[n]) for n, t in net.state_dict().items())
    assert (told.arrived, told.tensors, told.matched) == (9, 9, "name")
    assert told.parameters == told.arrived_parameters == 4 * 8 + 8 + 8 + 8 + 8 * 8 + 8
    assert told.missing == told.left_over == ()
    assert told.not_needed == ("3.bias", "3.weight")


def test_a_wrapper_around_the_names_is_taken_off():
    net, tensors = network(), given()
    told = report(
        fill(net, weights({f"net.{n}": t for n, t in tensors.items()} | {"loss.w": torch.ones(1)})), net
    )
    assert torch.equal(net[0].weight, tensors["0.weight"])
    assert (told.share, told.left_over) == (1.0, ("loss.w",))


def renamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"old{n.replace('.', '_', 1)}.{n.rpartition('.')[2]}": t for n, t in tensors.items()}


def test_foreign_names_are_paired_by_order_and_shape_and_it_is_said():
    net, tensors = network(), given()
    told = report(fill(net, weights(renamed(tensors))), net)
    assert all(torch.equal(t, tensors[n]) for n, t in net.state_dict().items() if "num_batches" not in n)
    assert told.matched == "order and shape"
    assert "paired by order and shape, not by name" in told.lines()[1]


@pytest.mark.parametrize("break_it", ["order", "kind", "shape", "number", "sorted"])
def test_order_and_shape_pairs_nothing_unless_everything_fits(break_it):
    tensors = renamed(given())
    ordered = True
    if break_it == "order":
        tensors = dict(reversed(tensors.items()))
    if break_it == "kind":
        tensors = {n.replace("weight", "scale"): t for n, t in tensors.items()}
    if break_it == "shape":
        tensors = renamed(given(width=9))
    if break_it == "number":
        tensors = tensors | {"more.weight": torch.zeros(1)}
    if break_it == "sorted":
        ordered = False
    assert match(network(), weights(tensors, ordered=ordered)).pairs == {}


def test_another_shape_counts_as_missing_and_is_said():
    net, tensors = network(), given()
    before = net[0].bias.clone()
    tensors["0.bias"] = torch.zeros(5)
    told = report(fill(net, weights(tensors)), net, allow_missing=["0.bias"])
    assert told.missing == ("0.bias",)
    assert torch.equal(net[0].bias, before)
    assert "0.bias has shape (5,) in the weights, (8,) in the network" in told.notes
    assert told.left_over == ("0.bias",)


def test_too_little_is_an_error_that_says_what_and_how_much():
    net, tensors = network(), given()
    del tensors["2.weight"]
    with pytest.raises(TopgraftError) as caught:
        report(fill(net, weights(tensors)), net)
    message = str(caught.value)
    share = 64 / (4 * 8 + 8 + 8 + 8 + 8 * 8 + 8)
    assert f"{int((1 - share) * 1000) / 10:.1f} % of the parameters" in message
    assert "Did not arrive (1 of 9 tensors): 2.weight" in message
    assert "--allow-missing" in message
    told = report(fill(net, weights(tensors)), net, allow_missing=["2.*"])
    assert told.missing == ("2.weight",)
    assert told.share == pytest.approx(1 - share)
    assert any("left at random values: 2.weight" in line for line in told.lines())


@pytest.mark.parametrize("gone", [4, 6])
def test_the_limit_lies_at_95_percent(gone):
    net = nn.Linear(1, 100, bias=False)
    net.extra = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(10)])
    tensors = {n: torch.ones_like(t) for n, t in net.state_dict().items()}
    for i in range(gone):
        del tensors[f"extra.{i}"]
    names = set(net.state_dict())
    filled = fill(net, weights(tensors))
    if gone == 4:
        assert len(report_on(net, filled, names, source="own").missing) == 4
    else:
        with pytest.raises(TopgraftError, match=r"94\.5 % of the parameters"):
            report_on(net, filled, names, source="own")


def test_missing_running_statistics_are_an_error_although_they_are_no_parameters():
    net, tensors = network(), given()
    del tensors["1.running_mean"], tensors["1.running_var"]
    with pytest.raises(TopgraftError, match=r"0\.0 % of the running statistics"):
        report(fill(net, weights(tensors)), net)


def test_values_that_are_not_finite_are_refused():
    tensors = given()
    tensors["2.weight"][0, 0] = float("nan")
    with pytest.raises(TopgraftError, match=r"2\.weight holds values that are not finite"):
        fill(network(), weights(tensors))


def test_a_pattern_that_fits_nothing_names_the_nearest():
    with pytest.raises(TopgraftError, match=r"allow_missing='blocks.O' fits no tensor.*Nearest: blocks.0"):
        allowed_names(["blocks.O"], ["blocks.0.weight", "blocks.0.bias"])


def test_a_renaming_that_does_not_know_the_file_leaves_its_names():
    def change(tensors, _network):
        return {"0.weight": tensors["published.weight"]}

    net, tensors = network(), given()
    told = report(fill(net, weights(tensors), change), net)
    assert told.share == 1.0
    assert told.weights == "a test, under the names that the file has"


def test_half_precision_weights_fill_a_network_in_its_own_type():
    net = network()
    tensors = {n: t.half() if t.is_floating_point() else t for n, t in given().items()}
    fill(net, weights(tensors))
    assert net[0].weight.dtype == torch.float32
    assert torch.equal(net[0].weight, tensors["0.weight"].float())


def test_the_digest_changes_with_a_bit_a_name_a_type_and_a_shape():
    one = {"a": torch.zeros(2, 3)}
    others = [
        {"a": torch.zeros(2, 3).index_put_((torch.tensor(0), torch.tensor(0)), torch.tensor(-0.0))},
        {"b": torch.zeros(2, 3)},
        {"a": torch.zeros(2, 3, dtype=torch.int32)},
        {"a": torch.zeros(3, 2)},
    ]
    assert len({digest_of(t) for t in [one, *others]}) == 5
    assert digest_of({"a": torch.zeros(3, 2).t()}) == digest_of(one)
    assert digest_of({"a": torch.tensor(0.0), "e": torch.zeros(0)})  # a single number, and none
