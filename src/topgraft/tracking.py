"""What a run finds, told to trackers while it finds it: TensorBoard, Weights & Biases, MLflow.

Through accelerate's own trackers. A run keeps a journal of what it told; going on, it tells each tracker the
journal anew in place of what an earlier process told, so that a point is there once.
"""

from __future__ import annotations

import json
import logging
import math
import netrc
import os
import re
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from topgraft.console import Console
from topgraft.device import has_gpu
from topgraft.errors import TopgraftError, TopgraftWarning, did_you_mean
from topgraft.evidence import Evidence
from topgraft.files import DamagedFile, read_json, write_json
from topgraft.history import Epoch, History

FOLDER = "runs"
"""Where trackers write when nobody says; TensorBoard's own usual place."""
PROJECT = "topgraft"
Opened = tuple[Any, str, str]
"""Accelerate's tracker, where it writes in words, and what the run is known by there."""
JOURNAL = "tracked.json"
NEEDED: dict[str, Callable[[], tuple[Any, ...]]] = {
    "tensorboard": lambda: (import_module("tensorboard"),),
    "wandb": lambda: (import_module("wandb"),),
    "mlflow": lambda: (import_module("mlflow"), import_module("sqlalchemy"), import_module("alembic")),
}
"""By tracker, what has to be installed."""
SILENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}
"""So that the trackers' libraries tell their makers nothing, unless the environment says otherwise."""


@dataclass(frozen=True)
class Asked:
    """Which trackers, and where they write; checked.

    Parameters
    ----------
    trackers
        ``tensorboard``, ``wandb``, ``mlflow``.
    place
        A folder, or the address of a tracking server (MLflow alone).
    is_default
        Whether nobody said where.
    """

    trackers: tuple[str, ...] = ()
    place: str = FOLDER
    is_default: bool = True

    def place_for(self, tracker: str) -> str:
        """Where a tracker writes: MLflow's own variable names its server where nobody said."""
        usual = os.environ.get("MLFLOW_TRACKING_URI") if tracker == "mlflow" and self.is_default else None
        return usual or self.place

    @classmethod
    def of(cls, trackers: Sequence[str], place: str | Path | None) -> Asked:
        """Checked before anything starts.

        Raises
        ------
        TopgraftError
            If a tracker is unknown or not installed, or can't write there.

        Examples
        --------
        >>> Asked.of(["tensorbord"], None)
        Traceback (most recent call last):
        topgraft.errors.TopgraftError: --track tensorbord: give tensorboard, wandb or mlflow. Nearest: ...
        """
        for variable, value in SILENT.items():
            os.environ.setdefault(variable, value)
        for name in trackers:
            if name not in NEEDED:
                near = did_you_mean(name, NEEDED)
                raise TopgraftError(f"--track {name}: give tensorboard, wandb or mlflow.{near}")
            try:
                NEEDED[name]()
            except ImportError as error:
                raise TopgraftError(
                    f"--track {name} needs {error.name}, an optional extra: pip install 'topgraft[{name}]'."
                ) from error
        if place is not None and not trackers:
            raise TopgraftError(
                f"--track-to {place} needs a tracker: give --track tensorboard, wandb or mlflow."
            )
        where = str(FOLDER if place is None else place)
        folders = [name for name in trackers if name != "mlflow"]
        if "://" in where and folders:
            raise TopgraftError(
                f"--track {folders[0]} writes to a folder; --track-to {where} is an address, for mlflow."
            )
        if "://" not in where and Path(where).exists() and not Path(where).is_dir():
            raise TopgraftError(f"--track-to {where} is a file; give a folder, or the address of a server.")
        return cls(tuple(dict.fromkeys(trackers)), where, place is None)


@dataclass
class Tracking:
    """The trackers of a run, all told the same; of no tracker, nothing happens.

    Parameters
    ----------
    trackers
        Accelerate's, by name.
    journal
        Points in the order in which they were told.
    path
        Where the journal is kept.
    """

    trackers: dict[str, Any] = field(default_factory=dict)
    journal: list[dict[str, Any]] = field(default_factory=list)
    path: Path | None = None
    document: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Know what is in the journal."""
        self._known = {(point["series"], point["step"]) for point in self.journal}

    def point(self, series: str, axis: str, step: int, values: Mapping[str, float | None]) -> None:
        """Tell numbers at a step of a series; what was told before is not told again.

        Parameters
        ----------
        series
            What the names of the numbers begin with: ``training``.
        axis
            What the steps count: ``epoch``.
        step
            From 0.
        values
            Those that are no numbers (a loss before the first step) are left out.
        """
        finite = {_name(n): float(v) for n, v in values.items() if v is not None and math.isfinite(v)}
        if not self.trackers or not finite or (series, step) in self._known:
            return
        self._known.add((series, step))
        told = {
            "series": series,
            "axis": axis,
            "step": step,
            "values": finite,
            "time": int(time.time() * 1000),
        }
        self.journal.append(told)
        if self.path is not None:
            write_json(self.path, {**self.document, "points": self.journal})
        for name in list(self.trackers):
            self._tell(name, told)

    def _tell(self, name: str, told: Mapping[str, Any]) -> None:
        series, step = told["series"], told["step"]
        values = {f"{series}/{n}": v for n, v in told["values"].items()}
        with self._trusting(name):
            if name == "mlflow":
                self.trackers[name].log(values, step=step, timestamp=told["time"])
            elif name == "wandb":  # its own steps only rise; each series has an axis of its own there
                self.trackers[name].log({**values, f"{series}/{told['axis']}": step})
            else:
                self.trackers[name].log(values, step=step)

    @contextmanager
    def _trusting(self, name: str) -> Iterator[None]:
        """A tracker that fails ends nothing but itself, and that is said."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (each library has errors of its own, and the work goes on)
            self.trackers.pop(name, None)
            said = f"{str(error).strip() or type(error).__name__:.200}"
            warnings.warn(
                f"{name} failed and is told nothing more of this run: {said}", TopgraftWarning, stacklevel=4
            )

    def evidence(self, evidence: Evidence) -> None:
        """Tell the score and loss at every cut; the step is the number of blocks kept."""
        for cut in evidence.cuts:
            values = {"score": cut.score, "low": cut.low, "high": cut.high, "loss": cut.loss}
            self.point("evidence", "keep", cut.keep, values)

    def epoch(self, series: str, epoch: Epoch) -> None:
        """Tell an epoch of a training."""
        values = {
            "loss": epoch.loss,
            "validation_loss": epoch.validation_loss,
            "validation_score": epoch.validation_score,
            "rate": epoch.rate if epoch.number else math.nan,
            "seconds": epoch.seconds,
        }
        self.point(series, "epoch", epoch.number, values)

    def history(self, series: str, history: History) -> None:
        """Tell a whole training, as far as it was not told live."""
        for epoch in history.epochs:
            self.epoch(series, epoch)

    def result(self, scores: Sequence[Mapping[str, Any]], **more: float) -> None:
        """Tell the final scores with their intervals, and what was decided."""
        values = {
            f"{score['metric']}{end}": score[key]
            for score in scores
            for end, key in (("", "value"), (" low", "low"), (" high", "high"))
        }
        self.point("score", "end", 0, values)
        self.point("decided", "end", 0, more)


def _name(metric: str) -> str:
    """A metric's name as every tracker takes it.

    Examples
    --------
    >>> _name("macro F1 low"), _name("error (€)")
    ('macro_F1_low', 'error')
    """
    return re.sub(r"[^A-Za-z0-9_./-]+", "_", metric).strip("_")


@contextmanager
def tracking(asked: Asked, work: Path, parameters: Mapping[str, Any], console: Console) -> Iterator[Tracking]:
    """Trackers that are open in the block.

    Parameters
    ----------
    asked
        Which, and where.
    work
        A folder that lasts as long as the run is unfinished, for the journal.
    parameters
        Of the run; ``None`` is left out.
    console
        Where it is said where they write.

    Raises
    ------
    TopgraftError
        If a tracker can't be opened.
    """
    if not asked.trackers:
        yield Tracking()
        return
    path = work / JOURNAL
    try:
        before = read_json(path) if path.is_file() else {}
    except DamagedFile:
        before = {}
    run = before.get("run") or _run_name(work.resolve().parent.name)
    ids: dict[str, str] = dict(before.get("ids", {}))
    document = {"run": run, "ids": ids}
    found = Tracking(journal=list(before.get("points", ())), path=path, document=document)
    plain = {n: v if isinstance(v, (bool, int, float, str)) else json.dumps(v) for n, v in parameters.items()}
    told = {n: v for n, v in plain.items() if v != "null"}
    _begin_accelerate()
    for name in asked.trackers:
        place = asked.place_for(name)
        try:
            there = f"{name} {place if '://' in place else Path(place).resolve()}"
            found.trackers[name], where, ids[there] = OPEN[name](place, run, ids.get(there))
            found.trackers[name].store_init_configuration(told)
        except Exception as error:
            said = f"{str(error).strip() or type(error).__name__:.400}"
            raise TopgraftError(f"--track {name} --track-to {place}: {said}") from error
        console.line("Tracking", where)
    write_json(path, {**document, "points": found.journal})
    for name, tracker in list(found.trackers.items()):
        for told_before in found.journal[_there(name, tracker) :]:
            if name in found.trackers:
                found._tell(name, told_before)
    is_whole = False
    try:
        yield found
        is_whole = True
    finally:
        for name in list(found.trackers):
            with found._trusting(name):
                if name == "mlflow" and not is_whole:
                    import_module("mlflow").end_run("KILLED")
                found.trackers[name].finish()


def _run_name(folder: str) -> str:
    """A name that no other run has, of letters that every tracker takes."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.split(".", maxsplit=1)[0]).strip("-")[:64]
    return f"{stem or 'run'}-{uuid.uuid4().hex[:8]}"


def _begin_accelerate() -> None:
    """Where training will run, which accelerate wants to know before a tracker begins."""
    from accelerate import PartialState

    PartialState(cpu=not has_gpu())


def _there(name: str, tracker: Any) -> int:
    """How many points of the journal a tracker has already: a run online at Weights & Biases goes on."""
    return int(tracker.run.step) if name == "wandb" else 0


def _tensorboard(place: str, run: str, before: str | None) -> Opened:
    from accelerate.tracking import TensorBoardTracker

    folder = Path(place) / run
    if before == run:  # of an earlier process of this run; the journal holds it all
        shutil.rmtree(folder, ignore_errors=True)
    tracker = TensorBoardTracker(run, logging_dir=place)
    tracker.start()
    return tracker, f"tensorboard: {folder}, seen by: tensorboard --logdir {place}", run


def _wandb(place: str, run: str, before: str | None) -> Opened:
    from accelerate.tracking import WandBTracker

    offline = os.environ.get("WANDB_MODE") == "offline" or not (
        os.environ.get("WANDB_MODE") or os.environ.get("WANDB_API_KEY") or _has_login()
    )
    if before == run:  # what an earlier process kept here, and did not send
        for old in (Path(place) / "wandb").glob(f"offline-run-*-{run}"):
            shutil.rmtree(old, ignore_errors=True)
    Path(place).mkdir(parents=True, exist_ok=True)
    quiet = import_module("wandb").Settings(console="off", silent=True)
    more = {"mode": "offline"} if offline else {"resume": "allow"}
    tracker: Any = WandBTracker(PROJECT, dir=place, id=run, name=run, settings=quiet, **more)
    tracker.start()
    if offline:
        folder = Path(tracker.run.dir).parent
        said = f"wandb: offline, since no key is set: {folder}; to send it: wandb sync {folder}"
        return tracker, said, run
    return tracker, f"wandb: {tracker.run.url or tracker.run.dir}", run


def _has_login() -> bool:
    """Whether a key for Weights & Biases lies where its own login puts it."""
    with suppress(OSError, netrc.NetrcParseError):
        host = re.sub(r"^https?://", "", os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).strip("/")
        return netrc.netrc().authenticators(host) is not None
    return False


def _mlflow(place: str, run: str, before: str | None) -> Opened:
    from accelerate.tracking import MLflowTracker

    mlflow = import_module("mlflow")
    artifacts: str | None = None
    address = place
    if "://" not in place:
        folder = Path(place).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        address, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "mlflow").as_uri()
    mlflow.set_tracking_uri(address)
    tracker = MLflowTracker(PROJECT, logging_dir=artifacts, run_id=before, run_name=run)
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.WARNING)  # it tells of each table that it makes
    try:
        tracker.start()
    finally:
        logger.setLevel(level)
    return tracker, f"mlflow: {run} at {address}", str(tracker.tracker.info.run_id)


OPEN: dict[str, Callable[[str, str, str | None], Opened]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
"""How a tracker is opened: where, the run's name, and what an earlier process was known by there."""
