"""The service against its own OpenAPI description: whatever is sent, no failure, and replies as described.

An input that can't be used among others is the error of its row, in a reply of 200: that wrong data are
always refused is not asked for. ``TOPGRAFT_FUZZ_EXAMPLES`` says how many requests are made of each kind;
``make fuzz`` sets it high.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hub_cache import tiny_bert
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from made_rows import table
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection
from served import graft_model, in_thread, rows_backbone
from small_networks import backbone_of, example_maps, maps

from topgraft.backbones import load
from topgraft.data import read
from topgraft.features.store import Store
from topgraft.serve.examples import examples_of
from topgraft.serve.limits import Limits

EXAMPLES = int(os.environ.get("TOPGRAFT_FUZZ_EXAMPLES", "15"))
LIMITS = Limits(body=100_000, inputs=20)


KINDS = ["arrays", "texts", "rows", "pictures", pytest.param("sounds", marks=pytest.mark.exhaustive)]


@pytest.fixture(scope="module", params=KINDS)
def described(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    examples = None
    if request.param == "arrays":
        model = graft_model(backbone_of(maps(), example_maps()), 4, 2)
    elif request.param == "rows":
        model = graft_model(rows_backbone(), 7, 0)
        data = read(table(20, seed=2).drop(columns="spent"), label="bought", columns="all", modality="row")
        store = Store(tmp_path_factory.mktemp("store"))
        examples = lambda predictor: examples_of(predictor, data, store)  # noqa: E731
    elif request.param == "pictures":
        model = graft_model(load("timm/test_efficientnet", weights="none"), 4, 3)
    elif request.param == "sounds":
        model = graft_model(load("sound/resemblyzer", weights="none"), 1, 1)
    else:
        folder: Path = tmp_path_factory.mktemp("bert")
        tiny_bert(folder)
        model = graft_model(load(f"hf/{folder}"), 2, 1)
    with in_thread(model, LIMITS, examples=examples) as address:
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_fails_and_every_reply_is_as_described(described: Any, mode: GenerationMode) -> None:
    statuses: Counter[int] = Counter()
    for found in described.get_all_operations():
        operation = found.ok()

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy(generation_mode=mode))
        def hold(case: Any) -> None:
            reply = case.call_and_validate(excluded_checks=[negative_data_rejection])
            statuses[reply.status_code] += 1

        with contextlib.suppress(Unsatisfiable):  # what takes nothing can't be asked wrongly
            hold()
    if mode is GenerationMode.POSITIVE:
        assert statuses[200] > EXAMPLES // 2, statuses
    assert max(statuses, default=0) < 500
