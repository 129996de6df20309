from __future__ import annotations

import json

from topgraft.backbones.types import LoadReport

FULL = LoadReport(
    source="timm/x",
    weights="the hub",
    digest="ab",
    tensors=10,
    arrived=8,
    parameters=1000,
    arrived_parameters=990,
    missing=("a", "b"),
    left_over=("c",),
    not_needed=("fc.bias", "fc.weight"),
    beside=("pooler.bias",),
    notes=("a has shape (1,) in the weights, (2,) in the network",),
)


def test_lines_tell_everything():
    assert FULL.lines() == [
        (
            "timm/x: 8 of 10 tensors of the backbone arrived (99.0 % of its parameters); "
            "2 of the old output layer left out; 1 not needed (pooler.bias)"
        ),
        "from the hub",
        "did not arrive: a, b",
        "left over: c",
        "a has shape (1,) in the weights, (2,) in the network",
    ]


def test_json_gives_the_same_report_back():
    assert LoadReport.from_json(json.loads(json.dumps(FULL.to_json()))) == FULL


def test_random_values_are_called_random():
    report = LoadReport("timm/x", "random values", "ab", 10, 0, 1000, 0, missing=("a",), matched="random")
    assert report.lines() == ["timm/x: random values, no weights were loaded (10 tensors)"]
