"""What the work costs, told before it: the trial, `--dry-run`, and predicted beside actual after a fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_line import BLOCKS, Job, called, content, done, tiny_job
from torch import Tensor, nn

import topgraft as tg
from topgraft.features.engine import BATCH
from topgraft.features.passes import pooled_shelf
from topgraft.features.store import Store
from topgraft.ledger import STAGES
from topgraft.rehearsal import memory_held, rehearse

STAGE = {"seconds", "memory", "disk"}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return tiny_job(tmp_path_factory.mktemp("job") / "here")


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("TOPGRAFT_CACHE", str(tmp_path / "store"))
    yield tmp_path / "store"
    torch.set_num_threads(before)


def dry(job: Job, out: Path, *more: str) -> dict[str, object]:
    outcome = job.fit(out, "--dry-run", "--json", *more)
    assert outcome.status == 0, outcome.err
    return dict(outcome.json)


def test_a_trial_measures_and_leaves_random_numbers_and_networks_as_they_were(job: Job) -> None:
    data = tg.read(job.table)
    backbone = tg.load(job.backbone)
    weights = {n: t.clone() for n, t in backbone.network.state_dict().items()}
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    speed = rehearse(backbone, data)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert all(torch.equal(t, weights[n]) for n, t in backbone.network.state_dict().items())
    assert not any(p.grad is not None for p in backbone.network.parameters())
    assert speed.example > 0
    assert 0 < speed.decoding < speed.example * 2
    assert speed.training is not None
    assert speed.training > 0
    assert speed.update > 0
    words = sum(len(str(text).split()) for text in data.inputs) / len(data)
    assert speed.length == pytest.approx(words + 2, abs=1)  # two signs mark beginning and end


@pytest.mark.parametrize("seconds", [1e-9, 60.0])
def test_what_the_trial_of_a_fit_computes_the_pass_does_not_compute_again(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr("topgraft.rehearsal.SECONDS", seconds)
    data, backbone = tg.read(job.table), tg.load(job.backbone)
    tried, usual = Store(tmp_path / "tried"), Store(tmp_path / "usual")
    shelf = pooled_shelf(backbone, tried, engine="torch", precision="fp32")
    speed = rehearse(backbone, data, shelf=shelf, training=False)
    assert speed.kept == len(shelf.known()) == (len(data) if seconds > 1 else BATCH)
    features, reused = tg.one_pass(backbone, data, tried)
    assert reused == speed.kept
    alone, _ = tg.one_pass(backbone, data, usual)
    assert all(torch.equal(features.cuts[cut], alone.cuts[cut]) for cut in alone.cuts)


def test_the_trial_says_how_long_the_network_took_to_convert_also_when_it_was_kept(tmp_path: Path) -> None:
    rows = torch.randn(24, 6, generator=torch.Generator().manual_seed(0)).numpy()
    data = tg.read(rows, targets=[i % 2 for i in range(24)])
    network = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    backbone = tg.load(network, modality="array", example=torch.from_numpy(rows[:2]))
    store = Store(tmp_path / "store")
    first = rehearse(backbone, data, engine="openvino", store=store, training=False)
    assert first.converting > 0
    assert (
        rehearse(backbone, data, engine="openvino", store=store, training=False).converting
        == first.converting
    )
    assert rehearse(backbone, data, training=False).converting == 0


class NoDerivative(torch.autograd.Function):
    """As operations are that a library wrote for inference only."""

    @staticmethod
    def forward(_: object, x: Tensor) -> Tensor:  # type: ignore[override]
        return x * 2

    @staticmethod
    def backward(_: object, *__: Tensor) -> Tensor:
        raise RuntimeError("derivative is not implemented")


class OnlyForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = NoDerivative.apply(self.first(x))  # type: ignore[no-untyped-call]
        return NoDerivative.apply(self.second(x))  # type: ignore[no-any-return,no-untyped-call]


def test_a_network_that_can_not_be_trained_is_timed_all_the_same() -> None:
    rows = torch.randn(24, 6, generator=torch.Generator().manual_seed(0)).numpy()
    data = tg.read(rows, targets=[i % 2 for i in range(24)])
    backbone = tg.load(nn.Sequential(OnlyForward()), modality="array", example=torch.from_numpy(rows[:2]))
    speed = rehearse(backbone, data)
    assert speed.training is None
    assert speed.step == pytest.approx(3 * speed.chain)


def test_memory_is_told_as_the_system_tells_it() -> None:
    now, most = memory_held()
    assert 0 <= now <= most


def test_a_dry_run_of_a_fit_tells_people_and_leaves_nothing(job: Job, tmp_path: Path, store: Path) -> None:
    before = content(tmp_path)
    outcome = job.fit(tmp_path / "model", "--dry-run", "--keep", "2", "--freeze", "1", "--budget", "90")
    assert outcome.status == 0, outcome.err
    assert content(tmp_path) == before
    assert not (tmp_path / "model").exists()
    assert not store.exists()
    places = [outcome.out.index(f"\n{label}") for label in ("Input", "Data", "Cost")]
    assert outcome.out.startswith("Weights")
    assert places == sorted(places)
    for part in (
        "one pass",
        "probes",
        "keep 2 (to encoder.layer.0) of 3",
        "keep 3 (to encoder.layer.1) of 3",
    ):
        assert part in outcome.out
    assert "1 (to embeddings), as asked" in outcome.out
    assert "within 90 s" in outcome.out
    for label in ("One pass", "Advice", "Score", "Saved"):
        assert f"\n{label}" not in outcome.out


def test_a_dry_run_in_json_is_one_document(job: Job, tmp_path: Path) -> None:
    document = dry(job, tmp_path / "model", "--keep", "2", "--freeze", "1", "--epochs", "4")
    assert document.keys() == {
        *("resizing", "pass", "probes", "search", "candidates"),
        *("examples", "distinct", "stored", "budget", "spent", "speed"),
    }
    assert document["pass"].keys() == document["probes"].keys() == STAGE  # type: ignore[attr-defined]
    found = [(c["keep"], c["freeze"], c["asked"]) for c in document["candidates"]]  # type: ignore[attr-defined]
    assert found == [(2, 2, False), (2, 1, True), (2, 0, False), *((3, m, False) for m in (3, 2, 1, 0))]
    assert {c["epochs"] for c in document["candidates"]} == {0, 4}  # type: ignore[attr-defined]
    assert document["examples"] == 36
    assert json.dumps(document, allow_nan=False)


def test_a_dry_run_tells_the_search_where_there_is_one(job: Job, tmp_path: Path) -> None:
    open_ones, asked, several = (
        dry(job, tmp_path / "model", *more)["search"]
        for more in ((), ("--freeze", "1"), ("--keep", "2", "--freeze", "1,0"))
    )
    assert asked is None
    for found in (open_ones, several):
        assert isinstance(found, dict)
        assert found.keys() == STAGE
        assert found["seconds"] > 0
        assert found["disk"] > 0  # states are stored where something is frozen
    assert dry(job, tmp_path / "model", "--keep", "1")["search"] is None  # only nothing can be frozen
    out = [job.fit(tmp_path / "model", "--dry-run", *more).out for more in ((), ("--freeze", "1"))]
    assert ["\n search " in one for one in out] == [True, False]


def test_a_dry_run_tells_what_choices_that_were_named_cost(job: Job, tmp_path: Path) -> None:
    document = dry(job, tmp_path / "model", "--keep", "2", "--freeze", "1")
    several = dry(job, tmp_path / "model", "--keep", "2", "--freeze", "1,0")
    found = [[(c["keep"], c["freeze"]) for c in one["candidates"]] for one in (document, several)]  # type: ignore[attr-defined]
    assert found == [
        [(2, 2), (2, 1), (2, 0), (3, 3), (3, 2), (3, 1), (3, 0)],
        [(2, 2), (2, 1), (2, 0), *((3, m) for m in (3, 1, 0))],
    ]


def test_a_dry_run_of_the_probes_tells_the_pass_and_the_probes(job: Job, store: Path) -> None:
    arguments = ("probe", job.table, "--backbone", job.backbone, "--dry-run")
    outcome = done(*arguments)
    assert "one pass" in outcome.out
    assert "keep 3" not in outcome.out
    document = done(*arguments, "--json").json
    assert document["candidates"] == []
    assert document["pass"]["disk"] > 0
    assert not store.exists()


def test_quiet_says_nothing(job: Job, tmp_path: Path) -> None:
    outcome = job.fit(tmp_path / "model", "--quiet", "--dry-run")
    assert (outcome.out, outcome.err) == ("", "")


def test_what_is_stored_already_is_told_and_costs_nothing(job: Job, tmp_path: Path, store: Path) -> None:
    first = dry(job, tmp_path / "a")
    trained = ("--keep", "2", "--freeze", "1", "--epochs", "1")
    assert job.fit(tmp_path / "a", *trained).status == 0
    kept = content(store)
    outcome = job.fit(tmp_path / "b", "--dry-run", *trained)
    assert "36 are stored already" in outcome.out
    document = dry(job, tmp_path / "b", *trained)
    assert (first["stored"], document["stored"]) == (0, 36)
    assert (document["pass"]["seconds"], document["pass"]["disk"]) == (0, 0)  # type: ignore[index]
    asked = next(c for c in document["candidates"] if c["asked"])  # type: ignore[attr-defined]
    assert (asked["storing"], asked["stored"]) == (0, 0)
    assert content(store) == kept


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--keep", "9"), "keep=9 is more than the 3 blocks"),
        (("--budget", "0"), "--budget 0 is out of range"),
        (("--label", "stars"), "stars"),
        (("--backbone", "hf/no-such-folder"), "no-such-folder"),
    ],
)
def test_bad_input_is_refused_as_in_a_fit(job: Job, tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    outcome = job.fit(tmp_path / "model", "--dry-run", *more)
    assert outcome.status == 2
    assert said in outcome.err
    assert "Cost" not in outcome.out
    assert not (tmp_path / "model").exists()


def test_a_place_that_a_fit_would_refuse_is_refused(job: Job, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    outcome = called("fit", job.table, "-o", tmp_path / "mine", "--backbone", job.backbone, "--dry-run")
    assert outcome.status == 2
    assert "left alone" in outcome.err


def test_a_finished_run_at_the_default_place_does_not_matter(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("fit", job.table, "--backbone", job.backbone, "--freeze", "all")
    done(*arguments)
    before = content(tmp_path)
    assert "36 are stored already" in done(*arguments, "--dry-run").out
    assert called(*arguments, "--dry-run", "-o", "words.topgraft").status == 2
    assert content(tmp_path) == before


def test_from_python_a_forecast_is_an_object(job: Job, tmp_path: Path, store: Path) -> None:
    told = tg.forecast(job.table, tmp_path / "model", backbone=job.backbone, keep=2, freeze=1)
    assert isinstance(told, tg.Forecast)
    assert told.one_pass.seconds > 0
    assert [c.freeze for c in told.candidates if c.asked] == [1]
    assert not (tmp_path / "model").exists()
    assert not store.exists()


def test_after_a_fit_predicted_and_actual_stand_side_by_side(job: Job, tmp_path: Path) -> None:
    outcome = job.fit(tmp_path / "model", "--keep", "3", "--freeze", "1", "--epochs", "2", "--json")
    assert outcome.status == 0, outcome.err
    assert "predicted" in outcome.err
    told = outcome.json["forecast"]
    assert list(told) == list(STAGES)
    assert told["search"] is told["resizing"] is None  # freeze was asked for, and these are no pictures
    for stage in set(STAGES) - {"search", "resizing"}:
        assert told[stage]["seconds"]["predicted"] > 0
        assert told[stage]["seconds"]["actual"] > 0
    for stage in ("pass", "storing"):
        disk = told[stage]["disk"]
        assert disk["predicted"] < disk["actual"] < 1.5 * disk["predicted"] + 40_000  # names and checksums
    assert told["training"]["epochs"] == {"predicted": 2, "actual": 2}
    assert json.loads((tmp_path / "model" / "result.json").read_text())["forecast"] == told


def test_what_was_foretold_of_bytes_and_parameters_is_what_comes(job: Job, tmp_path: Path) -> None:
    choice = ("--keep", "2", "--freeze", "1", "--hidden", "8", "--epochs", "1")
    asked = next(c for c in dry(job, tmp_path / "model", *choice)["candidates"] if c["asked"])  # type: ignore[attr-defined]
    outcome = job.fit(tmp_path / "model", *choice, "--json")
    assert outcome.json["trained_parameters"] == asked["trained_parameters"]
    saved = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert asked["model"] <= saved < asked["model"] + 20_000  # names and buffers
    plan = json.loads((tmp_path / "model" / "plan.json").read_text())
    assert [c["freeze"] for c in plan["forecast"]["candidates"] if c["asked"]] == [1]


def test_stages_that_were_not_done_are_null(job: Job, tmp_path: Path) -> None:
    told = job.fit(tmp_path / "model", "--freeze", "all", "--json").json["forecast"]
    assert told["storing"] is None
    assert told["training"] is None
    assert told["pass"]["seconds"]["actual"] > 0


def test_the_forecast_changes_nothing_in_the_model(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = ("--keep", "3", "--freeze", "1", "--epochs", "2", "--dropout", "0.2")
    assert job.fit(tmp_path / "a", *choice).status == 0
    real = rehearse

    def slower(*arguments: object, **more: object) -> object:
        for _ in range(2):
            told = real(*arguments, **more)  # type: ignore[arg-type]
        torch.rand(3)  # as nothing in a fit may depend on where torch's stream stands
        return told

    monkeypatch.setattr("topgraft.rehearsal.rehearse", slower)
    assert job.fit(tmp_path / "b", *choice, "--plan", str(tmp_path / "a" / "plan.json")).status == 0
    a, b = ((tmp_path / n / "model.safetensors").read_bytes() for n in "ab")
    assert a == b
    assert BLOCKS[1] in json.loads((tmp_path / "b" / "result.json").read_text())["blocks"]["trained"]
