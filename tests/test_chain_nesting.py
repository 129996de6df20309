from __future__ import annotations

from collections import OrderedDict, namedtuple

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from topgraft.chain.nesting import by_names, flattened, mapped, nested, put, take, tensors_in

trees = st.recursive(
    st.just(None) | st.integers() | st.builds(lambda: torch.zeros(1)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(trees)
def test_a_tensor_can_be_taken_from_and_put_into_any_nesting(value: object) -> None:
    for path, tensor in list(tensors_in(value)):
        assert take(value, path) is tensor
        new = torch.ones(2)
        changed = put(value, path, new)
        assert take(changed, path) is new
        assert take(value, path) is tensor  # a copy was changed
        assert type(changed) is (Tensor if not path else type(value))
        assert [p for p, _ in tensors_in(changed)] == [p for p, _ in tensors_in(value)]


def test_containers_keep_their_types():
    Two = namedtuple("Two", ["a", "b"])  # noqa: PYI024 (a named tuple is what is tested)
    value = OrderedDict(x=Two(torch.zeros(1), [torch.ones(1)]))
    changed = put(value, ("x", 0), torch.full((1,), 5.0))
    assert type(changed) is OrderedDict
    assert type(changed["x"]) is Two
    assert changed["x"].a.item() == 5
    doubled = mapped(value, lambda leaf: leaf * 2)
    assert type(doubled["x"].b) is list
    assert doubled["x"].b[0].item() == 2
    assert value["x"].b[0].item() == 1


names = st.text("abc", min_size=1, max_size=2)
dictionaries = st.recursive(
    st.builds(lambda: torch.zeros(1)), lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3)
).filter(lambda tree: isinstance(tree, dict))


@given(dictionaries)
def test_dotted_names_lead_back_into_dictionaries(tree: dict[str, object]) -> None:
    flat = flattened(tree)
    assert {id(t) for t in flat.values()} == {id(t) for _, t in tensors_in(tree)}
    assert flattened(nested(flat)).keys() == flat.keys()
    assert nested(flat) == tree


def test_what_is_inside_a_networks_one_dictionary_can_be_given_without_its_name():
    a, b = torch.zeros(1), torch.ones(1)
    wanted = ["batch.a", "batch.b"]
    assert list(by_names({"a": a, "b": b}, wanted)) == wanted
    assert list(by_names({"batch": {"a": a, "b": b}}, wanted)) == wanted
    assert list(by_names({"x": a}, ["x"])) == ["x"]
    assert list(by_names({"c": a}, wanted)) == ["c"]  # left as it is: the network says what it lacks
