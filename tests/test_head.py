from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from topgraft.chain import State
from topgraft.head import Head, steadiness
from topgraft.pooling import pool
from topgraft.probe import fit_head


def separable(count: int = 30, width: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % 3
    x = torch.randn(count, width, generator=source)
    x[:, :3] += 2 * torch.eye(3)[targets]
    return x, targets


@settings(max_examples=10)
@given(
    hidden=st.lists(st.integers(1, 5), max_size=2),
    dropout=st.sampled_from([0.0, 0.5]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    shift=st.floats(-50, 50),
)
def test_a_head_starts_from_the_probes_solution_whatever_layers_it_has(
    hidden: list[int], dropout: float, scale: float, shift: float
) -> None:
    x, targets = separable()
    x = (x + shift) * scale
    fit = fit_head(x, targets, 3)
    head = Head("vector", x.shape[1], 3, hidden=hidden, dropout=dropout).start_from(fit).eval()
    with torch.no_grad():
        got = head(x)
    assert got.dtype == torch.float32
    losses = [float(nn.functional.cross_entropy(logits.double(), targets)) for logits in (got, fit.logits(x))]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[1] < 1.0  # better than knowing nothing (log 3)


def test_a_state_is_pooled_first():
    head = Head("map", 8, 3)
    state = State((torch.randn(2, 4, 3, 3),))
    with torch.no_grad():
        assert torch.equal(head(state), head(pool(state, "map")))


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_standardised_features_change_what_is_learned_and_not_what_is_given(hidden: tuple[int, ...]) -> None:
    x, targets = separable()
    x = torch.cat([1e4 * x + 3e4, torch.full((30, 1), 7.0)], 1)  # the last column is constant
    fit = fit_head(x, targets, 3)
    torch.manual_seed(0)
    plain = Head("vector", 7, 3, hidden=hidden).start_from(fit)
    head = Head("vector", 7, 3, hidden=hidden).start_from(fit)
    head.load_state_dict(plain.state_dict())
    head.standardise(x)
    names = set(head.state_dict())
    with torch.no_grad():
        assert torch.allclose(head(x), plain(x), atol=1e-3)
    head(x).square().sum().backward()
    plain(x).square().sum().backward()
    assert plain.linear.weight.grad.norm() > 1e3 * head.linear.weight.grad.norm()
    with torch.no_grad():
        head.linear.weight.add_(0.1)  # as if it had learned
        before = head(x)
        head.cool(2.0)
        assert torch.allclose(2 * head(x), before, atol=1e-3)
    assert head.spread is None
    assert set(head.state_dict()) == names == set(plain.state_dict())  # nothing more to save
    saved = Head("vector", 7, 3, hidden=hidden)
    saved.load_state_dict(head.state_dict())
    with torch.no_grad():
        assert torch.equal(saved(x), head(x))


def test_hidden_layers_start_without_effect_and_learn():
    x, targets = separable()
    torch.manual_seed(0)
    head = Head("vector", 6, 3, hidden=(5, 4))
    assert [m.out_features for m in head.hidden or [] if isinstance(m, nn.Linear)] == [5, 4, 3]
    linear = nn.functional.linear(x, head.linear.weight, head.linear.bias)
    assert torch.equal(head(x), linear)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.5)
    before = {n: p.detach().clone() for n, p in head.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(x), targets).backward()
        optimizer.step()
    assert all(not torch.equal(p, before[n]) for n, p in head.named_parameters())


def test_dropout_is_on_in_training_only():
    x, _ = separable()
    head = Head("vector", 6, 3, dropout=0.5)
    with torch.no_grad():
        assert torch.equal(head.eval()(x), head(x))
        assert not torch.equal(head.train()(x), head(x))


@pytest.mark.parametrize("hidden", [(), (5, 4)])
def test_a_cooled_head_divides_every_logit_by_the_temperature(hidden: tuple[int, ...]):
    x, _ = separable()
    torch.manual_seed(0)
    head = Head("vector", 6, 3, hidden=hidden).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
        before = head(x)
        assert torch.allclose(head.cool(2.5)(x), before / 2.5, atol=1e-5)


def test_what_hardly_varies_counts_less_or_is_left_out_and_all_else_counts_as_it_did():
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(steadiness(x), torch.ones(6))
    x[:, 2] = 0.05 + 1e-4 * x[:, 2]
    x[:, 3] = 7.0
    assert steadiness(x).tolist() == [1, 1, 0, 0, 1, 1]
    x[:, 2] *= 40
    assert 0.2 < float(steadiness(x)[2]) < 0.8
    assert torch.equal(steadiness(torch.zeros(5, 3)), torch.ones(3))


def test_a_probe_may_lean_on_it_and_a_start_of_training_does_not():
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(300) % 2
    x = torch.randn(300, 5, generator=generator)
    x[:, 3] += 2 * y
    x[:, 4] = 1e-5 * (y + torch.randn(300, generator=generator))
    probe, start = (fit_head(x, y, 2, emphasis=weight).weight.abs() for weight in (None, steadiness(x)))
    assert float(probe[:, 4].max()) > 1e4
    assert float(start[:, 4].max()) == 0
    assert torch.allclose(start[:, 3], probe[:, 3], rtol=0.3)
    without = fit_head(x[:, :4], y, 2).weight.abs()
    assert torch.allclose(start[:, :4], without, rtol=1e-6)
