"""A true sample of ``make coverage``, and that its checks can fail."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cases_own
import pytest
import torch
from cases import enlivened
from checks import ACTIVATION, Found, Subject, check, difference, of_network, real_steps
from moments import listed_blocks, not_cut_apart
from torch import Tensor, nn

from topgraft.chain import Chain

PROGRAM = Path(__file__).resolve().parents[1] / "benchmarks" / "coverage.py"
SAMPLE = {
    "timm": ["test_resnet", "test_vit"],
    "torchvision": ["squeezenet1_1"],
    "transformers": ["bert"],
    "own": ["lstm-dropout", "one-dictionary"],
}


def coverage(build: Path, libraries: list[str], names: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), "--build", str(build), "--only", *libraries, "--names", *names]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300)


@pytest.mark.slow
def test_a_sample_of_every_library_is_cut_and_equal_and_is_not_measured_again(tmp_path):
    names = [name for some in SAMPLE.values() for name in some]  # names of different libraries differ
    done = coverage(tmp_path, list(SAMPLE), names)
    assert done.returncode == 0, done.stdout + done.stderr
    results = {file.stem: json.loads(file.read_text()) for file in tmp_path.glob("*-*.json")}
    assert results.keys() == {f"{library}-{name}" for library, some in SAMPLE.items() for name in some}
    for result in results.values():
        assert result["outcome"] == "equal"
        assert result["trained"]
        assert not result["merged"]
        assert set(result["largest"]) >= {"equal", "output", "alone", "twice", "gradients"}
    assert "padded" in results["transformers-bert"]["largest"]

    changed = dict(results["own-lstm-dropout"], key={"code": "of an earlier version"})
    (tmp_path / "own-lstm-dropout.json").write_text(json.dumps(changed))
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*-*.json")}
    again = coverage(tmp_path, list(SAMPLE), names)
    assert again.returncode == 0
    assert f"{len(names) - 1} of {len(names)} are there from before" in again.stdout
    written = {file.stem for file, time in before.items() if file.stat().st_mtime_ns != time}
    assert written == {"own-lstm-dropout"}


def test_an_unknown_name_is_told(tmp_path):
    done = coverage(tmp_path, ["own"], ["no-such-network"])
    assert done.returncode == 1
    assert "no-such-network" in done.stderr


def subject_of(name: str) -> Subject:
    case = cases_own.build(name)
    enlivened(case.network, case.inputs)
    return Subject(case.network, Chain.of(case.network, case.inputs), case.inputs, case.padded)


def with_parts_of(subject: Subject, change: Callable[[nn.Module], None]) -> Subject:
    """The same network beside a chain whose parts are made of a changed copy."""
    inside = copy.deepcopy(subject.chain.network)
    change(inside)
    return replace(subject, chain=of_network(subject.chain, inside))


def failed_checks(found: Found) -> set[str]:
    return {line.split(", ", 1)[1].split(":")[0] for line in found.wrong}


def test_a_true_chain_passes_every_check_at_every_cut():
    found = check(subject_of("nested"), all_gradients=True)
    assert found.wrong == []
    assert found.trained == [1, 2, 3, 4, 5, 6]
    assert max(found.largest.values()) <= ACTIVATION[0]


def test_a_changed_parameter_in_a_part_is_not_equal():
    def change(network: nn.Module) -> None:
        with torch.no_grad():
            weight = network.get_parameter("parts.body.1.1.0.weight")
            weight[0, 0, 0, 0] += 0.01

    found = check(with_parts_of(subject_of("nested"), change))
    assert {"equal", "output"} <= failed_checks(found)


class LeanedOnTheBatch(nn.Module):
    """A layer that looks at its neighbours in the batch."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + 1e-3 * x.mean()


class Noisy(LeanedOnTheBatch):
    """A layer that gives something else each time."""

    def forward(self, x: Tensor) -> Tensor:
        result = self.inner(x)
        return result + 1e-3 * torch.randn_like(result)


class Leaky(LeanedOnTheBatch):
    """A layer whose gradient is not its own."""

    def forward(self, x: Tensor) -> Tensor:
        result = self.inner(x)
        return result.detach() * 2 - result


@pytest.mark.parametrize(
    ("place", "wrapping", "failing"),
    [
        ("part0", LeanedOnTheBatch, {"alone"}),
        ("part0", Noisy, {"twice"}),
        ("part2", Leaky, {"gradients"}),
    ],
)
def test_each_check_finds_what_it_is_for(place, wrapping, failing):
    subject = subject_of("plain")

    def change(network: nn.Module) -> None:
        child = network.get_submodule(place)
        child.forward = wrapping(copy.copy(child)).forward

    found = check(with_parts_of(subject, change), all_gradients=True)
    assert failing <= failed_checks(found)


class Centred(nn.Module):
    """Steps are centred over the real ones, or over all as if there were no mask."""

    def __init__(self, *, heeds_mask: bool) -> None:
        super().__init__()
        self.heeds_mask = heeds_mask
        self.words, self.layer, self.head = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x, real = self.words(ids), mask[:, :, None] if self.heeds_mask else torch.ones_like(ids)[:, :, None]
        x = self.layer(x - (x * real).sum(1, keepdim=True) / real.sum(1, keepdim=True))
        return self.head((x * real).sum(1) / real.sum(1))


@pytest.mark.parametrize("heeds_mask", [True, False])
def test_padding_that_changes_a_real_step_is_found(heeds_mask):
    network, inputs = Centred(heeds_mask=heeds_mask).eval(), cases_own.tokens()
    subject = Subject(network, Chain.of(network, inputs), inputs, cases_own.tokens(more=4))
    assert failed_checks(check(subject)) == (set() if heeds_mask else {"padded"})


def test_differences_are_relative_and_what_is_not_finite_is_never_equal():
    ten = torch.tensor([[1.0, 10.0]])
    assert difference(ten + 0.1, ten) == pytest.approx(0.01, rel=1e-3)
    assert difference(ten, torch.tensor([[1.0, float("nan")]])) == float("inf")
    nan = torch.full((2, 2), float("nan"))
    assert difference(nan, nan) == float("inf")
    assert difference(torch.zeros(2, 3), torch.zeros(2, 4)) == float("inf")
    assert difference(torch.ones(2, 3, 1, 1), torch.ones(2, 3)) == 0


def test_only_real_steps_count_where_there_is_padding():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    short = torch.arange(6.0).view(2, 3, 1)
    long = torch.cat([short, torch.ones(2, 2, 1)], 1)
    long[0, 2], long[1, 1] = 7, 7
    assert difference(*real_steps(short, long, mask)) == 0
    long[1, 0] = 7
    assert difference(*real_steps(short, long, mask)) > 0


def test_listed_blocks_are_the_innermost_and_merged_ones_are_seen():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.b(torch.tanh(self.a(x)))

    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(Block(), Block())

        def forward(self, x: Tensor) -> Tensor:
            return self.blocks(x)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList([Stage(), Stage()])
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            for stage in self.stages:
                x = stage(x)
            return self.head(x)

    network, inputs = Network(), {"x": torch.randn(3, 4)}
    names = [f"stages.{i}.blocks.{j}" for i in range(2) for j in range(2)]
    assert listed_blocks(network) == names
    chain = Chain.of(network, inputs)
    assert not_cut_apart(chain, inputs) == (4, [])
    fewer = [point for point, block in zip(chain.points, chain, strict=True) if block.name != names[1]]
    assert not_cut_apart(Chain.of(network, inputs, points=fewer), inputs) == (4, [names[1]])


def test_constants_that_would_hide_a_mistake_get_noise():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    nn.init.zeros_(network[1].weight)
    enlivened(network, {"input": torch.randn(3, 3, 4, 4) + 2})
    assert not network.training
    assert float(network[1].weight.detach().abs().min()) > 0.01
    for values in (network[1].weight, network[1].bias, network[1].running_mean, network[1].running_var):
        assert float(values.detach().std()) > 0


class PoolsInForward(nn.Module):
    """As torchvision's MobileNetV2: a function pools, then dropout and the old output layer follow."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(nn.functional.adaptive_avg_pool2d(self.features(x), 1), 1))


def test_dropout_before_the_old_output_layer_is_its_own_and_not_compared() -> None:
    torch.manual_seed(0)
    network, inputs = PoolsInForward().eval(), {"x": torch.randn(3, 3, 8, 8)}
    found = check(Subject(network, Chain.of(network, inputs), inputs))
    assert found.trained
    assert not found.wrong
