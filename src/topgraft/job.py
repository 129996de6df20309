"""One fit under way: measure, advise, forecast, train; every decision is written before it is used."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from topgraft import rungs, search
from topgraft.calibration import Calibration
from topgraft.choices import named, resolve_freeze, resolve_keep, share_in_words
from topgraft.console import counted, duration, percent, size
from topgraft.cost import Candidate, forecast
from topgraft.cutmix import alphas, mixtures_in_words
from topgraft.dividing import settle_workers
from topgraft.evidence import Evidence
from topgraft.features.passes import pooled_shelf, states_shelf
from topgraft.features.shelf import Shelf
from topgraft.features.sources import Source, ViewSource
from topgraft.features.trial import Choice
from topgraft.finalists import depths_to_try, said_of_depth
from topgraft.finish import finish
from topgraft.graft import Graft
from topgraft.history import Epoch, History
from topgraft.judging import is_better, judge
from topgraft.kept_evidence import probe_all
from topgraft.objective import marks
from topgraft.rehearsal import candidate, candidates, is_live
from topgraft.resizing import resizing_foreseen, settle_resize, take_up_resize
from topgraft.show import evidence_table
from topgraft.show_cost import pass_line
from topgraft.show_health import checked, health_json, health_lines, must_not_be_lost
from topgraft.soup import refitted
from topgraft.stages import (
    advise,
    engine_for,
    engine_in_words,
    measure,
    planned,
)
from topgraft.tapping import settle_taps
from topgraft.train import seconds_an_example
from topgraft.underway import Underway


@dataclass
class Job(Underway):
    """One fit under way: the stages in their order, each decision written before it is used."""

    def go(self) -> dict[str, Any]:
        """Run every stage with the plan's number of threads; the fixed form of ``fit --json``."""
        before = torch.get_num_threads()
        threads = self.plan.decide("threads", lambda: (before, "as many as torch takes here"))
        torch.set_num_threads(threads)
        try:
            return self._stages()
        finally:
            torch.set_num_threads(before)

    def _stages(self) -> dict[str, Any]:
        plan, console = self.plan, self.console
        chain, source = self.ready.backbone.chain, self.ready.backbone.source
        limit = "as the plan says" if plan.is_repeat else duration(self.settings.budget)
        console.line("Budget", f"{limit} for the whole (--budget)")
        self._decide_engine()
        settle_workers(self)
        take_up_resize(self)
        begun = settle_resize(self, self._foretell(self._pooled()))
        ready, shelf = self.ready, self._pooled()
        with self.spending("pass", shelf):
            features, told = measure(
                ready.backbone, ready.development, self.store, self.settings, console, begun=begun
            )
        self.note_reuse("pass", told["items_reused"], told["items_reused"] * self._rate_of_pass(told))
        began = time.monotonic()
        with self.spending("probes"):
            path = self.run.path / "evidence.json"
            evidence, earlier = probe_all(
                features, ready.development, ready.fold_of, store=self.store, of=ready.backbone, path=path
            )
        probing = time.monotonic() - began
        self.tracking.evidence(evidence)
        if earlier is not None:
            self.note_reuse("probe", len(evidence.cuts), earlier)
            self.ledger.forget("probes")
        advice = advise(evidence, chain, prefer=self.settings.prefer, seed=self.settings.seed)
        evidence_table(console, chain, evidence, advice)
        for note in evidence.notes:
            console.line("Note", note)
        asked = resolve_keep(self.settings.keep, chain, source)
        share = share_in_words(self.settings.keep, len(chain))
        as_asked = f"{ready.asked} ({share})" if share else ready.asked
        keeps = depths_to_try(self, evidence, advice, asked)
        if len(keeps) == 1:
            plan.decide("keep", lambda: (asked, as_asked) if asked else (advice.keep, advice.reason))
        console.line("Advice", *said_of_depth(self, advice, asked, keeps))
        material = search.Material(
            backbone=ready.backbone,
            data=ready.development,
            store=self.store,
            settings=self.settings,
            features=features,
            targets=ready.targets,
            rows=np.flatnonzero(ready.fold_of != 0).tolist(),
            validation=np.flatnonzero(ready.fold_of == 0).tolist(),
        )
        material, keeps, evidence = settle_taps(self, material, keeps, evidence, probing=probing)
        self.calibration = Calibration.of_probe(evidence[keeps[0]], evidence.targets)
        self.searched = np.asarray(evidence[keeps[0]].marks)
        graft, history, freeze = self.settle(material, keeps, evidence, advice.reason)
        return finish(self, material, graft, history, advice, freeze)

    def _pooled(self) -> Shelf:
        """Where the one pass stores what it makes."""
        engine, precision = self.settings.engine, self.settings.precision
        return pooled_shelf(self.ready.backbone, self.store, engine=engine, precision=precision)

    def _decide_engine(self) -> None:
        ready, plan, made = self.ready, self.plan, list[Choice]()

        def choice() -> Choice:
            if not made:
                settings = planned(self.settings, plan.decisions)
                made.append(engine_for(ready.backbone, ready.development, self.store, settings))
            return made[0]

        engine = plan.decide("engine", lambda: (choice().engine, choice().reason))
        precision = plan.decide("precision", lambda: (choice().precision, choice().reason))
        self.ready = replace(ready, settings=replace(ready.settings, engine=engine, precision=precision))
        decided = Choice(engine, precision, plan.reason("engine"))
        self.console.line("Engine", engine_in_words(decided))

    def _foretell(self, shelf: Shelf) -> tuple[int, float]:
        """Say what the pass and the probes cost, and note it with what choices of keep and freeze would.

        Gives how many examples of the pass the trial has done, and in how many seconds.
        """
        before = shelf.size()
        costs = self.costs
        done = costs.speed.kept, costs.speed.kept * costs.speed.example
        self.ledger.spend("pass", seconds=done[1], disk=float(shelf.size() - before))
        known = self.plan.is_repeat or "resize" in self.plan.decisions
        resizing = resizing_foreseen(self.ready, self.store, costs, repeat=known, choices=True)
        told = forecast(costs, candidates(costs, self.ready, self.store, self.plan.decisions), resizing)
        self.plan.foretell(told.to_json())
        pass_line(self.console, told)
        self.ledger.predict("pass", **asdict(told.one_pass))
        self.ledger.predict("probes", seconds=told.probes.seconds, memory=told.most_memory)
        return done

    def _rate_of_pass(self, told: dict[str, Any]) -> float:
        """Seconds an example of the pass, measured now or by the process that stored the rest."""
        measured = float(told["seconds_an_example"])
        rate = self.plan.decide(
            "seconds_an_example",
            lambda: (
                measured or self.costs.speed.example,
                "measured on this machine",
            ),
        )
        self.seconds_of_pass = rate * len(self.ready.development)
        return float(rate)

    def settle(
        self, material: search.Material, keeps: Sequence[int], evidence: Evidence, advised: str
    ) -> tuple[Graft, History | None, int]:
        """Decide how many blocks to keep and to freeze, and train what is to be trained.

        Parameters
        ----------
        material, evidence
            What trainings share, and the probes.
        keeps, advised
            Depths that are open, first the one that is kept where nothing trains; and why that one.
        """
        chain, console, plan, keep = self.ready.backbone.chain, self.console, self.plan, keeps[0]
        asked = resolve_freeze(self.settings.freeze, chain, self.ready.backbone.source, keep)
        share = share_in_words(self.settings.freeze, keep, "kept blocks")
        as_asked = f"{self.ready.asked} ({share})" if share else self.ready.asked
        head_trains = search.head_trains(material)
        if plan.is_repeat and "freeze" in plan.decisions:
            candidate = int(plan.decisions["freeze"]["value"])
        elif asked is not None:
            candidate = asked
        else:
            keep, candidate = rungs.settle(self, material, keeps)
        if candidate == keep and not head_trains:
            plan.decide(
                "freeze", lambda: (keep, f"{as_asked}, so that only the head is new: the probe's solution")
            )
            console.line("Freeze", f"{named(chain, keep)} of {keep}: {plan.reason('freeze')}")
            return search.frozen_graft(material, keep), None, keep
        source, epochs = self._forecast(material, keep, candidate, forced=asked is not None or head_trains)
        if source is None:
            plan.decide("keep", lambda: (keeps[0], advised))
            freeze = plan.decide("freeze", lambda: (keeps[0], self.skipped[-1]))
            console.line("Freeze", f"{named(chain, freeze)}: {plan.reason('freeze')}")
            return search.frozen_graft(material, keeps[0]), None, freeze
        graft, trial = self._trial(material, keep, candidate, source, epochs, from_start=asked is None)
        if asked is None:
            better, why = judge(self, material, trial, evidence, source, probed=keeps[0])
        else:
            better, why = is_better(trial, evidence, material.validation, probed=keep)
        if keep != keeps[0] and better:
            told = f"its trainings did better than those of keep {keeps[0]}: {plan.reason('candidate')}"
            console.line("Keep", f"{named(chain, plan.decide('keep', lambda: (keep, told)))}: {told}")
        kept = plan.decide("keep", lambda: (keeps[0], advised))
        freeze = plan.decide(
            "freeze",
            lambda: self._freeze_of(asked, as_asked, candidate, kept, better=better, why=why),
        )
        console.line("Freeze", f"{named(chain, freeze)} of {named(chain, kept)}: {plan.reason('freeze')}")
        if (kept, freeze) != (keep, candidate):
            if not head_trains:
                return search.frozen_graft(material, kept), trial.history, kept
            source, _ = search.source_at(material, kept, freeze)
            graft, trial = self._trial(
                material, kept, freeze, source, epochs, from_start=True, series="training-head"
            )
        if trial.logits is not None:
            wanted = material.targets[material.validation]
            self.calibration = Calibration.of_outputs(trial.logits.numpy(), wanted.numpy())
            self.searched = marks(trial.logits, wanted).numpy()
        return refitted(self, material, graft, trial, source), trial.history, freeze

    def _trial(
        self,
        material: search.Material,
        keep: int,
        freeze: int,
        source: Source,
        epochs: int,
        *,
        from_start: bool,
        series: str = "training",
    ) -> tuple[Graft, search.Trial]:
        """Train on the training part, for as many epochs as the plan says or time allows."""
        plan, done, began = self.plan, f"epochs_done_at_{keep}_{freeze}", time.monotonic()
        stop_after = plan.decisions[done]["value"] if done in plan.decisions else None
        deadline = None if plan.is_repeat else time.monotonic() + max(1.0, self.left * 0.6)
        counts = plan.decide(
            "start_counts",
            lambda: (from_start, "whether the weights before the first step may be the best ones"),
        )

        def advance(epoch: Epoch) -> None:
            bar(1 if epoch.number else 0)
            self.tracking.epoch(series, epoch)

        with self.console.progress("Training", epochs, "epochs") as bar:
            graft, trial = search.run_trial(
                material,
                keep,
                freeze,
                source,
                epochs=epochs,
                stop_after=stop_after,
                checkpoint=self.run.work / f"trial-{keep}-{freeze}.safetensors",
                deadline=deadline,
                from_start=counts,
                advance=advance,
            )
        history = trial.history
        self.tracking.history(series, history)
        plan.decide(done, lambda: (len(history.epochs) - 1, history.stopped))
        spent = sum(e.seconds for e in history.epochs[: history.resumed + 1])
        self.note_reuse("training", history.resumed, spent)
        seconds = time.monotonic() - began + spent
        self.ledger.spend("training", seconds=seconds, epochs=len(history.epochs) - 1)
        self._tell_history(history, "Training")
        recipe = search.recipe_for(material, keep, epochs, material.rows)
        chain, normalised = material.backbone.chain, self.settings.normalise
        found = checked(chain, keep, history, recipe, normalised=normalised)
        health_lines(self.console, keep, history, found)
        self.health = health_json(history, found)
        if not from_start or freeze == keep:
            must_not_be_lost(keep, history, found)
        return graft, trial

    @staticmethod
    def _freeze_of(
        asked: int | None, as_asked: str, candidate: int, keep: int, *, better: bool, why: str
    ) -> tuple[int, str]:
        if asked is not None:
            return asked, f"{as_asked}; {why}"
        return (candidate, why) if better else (keep, f"{why}, so nothing but the head is trained")

    def _forecast(
        self, material: search.Material, keep: int, freeze: int, *, forced: bool
    ) -> tuple[Source | None, int]:
        """Say what training would cost, decide how many epochs it may take, and make what it reads."""
        chain, console, plan = self.ready.backbone.chain, self.console, self.plan
        work = np.cumsum([0.0, *chain.share_of_work()])
        cost = candidate(self.costs, self.ready, self.store, keep, freeze)
        short = (
            f"storing what training reads takes about {duration(cost.storing)}, "
            f"{duration(self.left)} of time left"
        )
        if cost.storing > 0.5 * self.left and not forced and not plan.is_repeat:
            plan.decide("epochs", lambda: (0, f"no training: {short}"))
        if plan.decisions.get("epochs", {}).get("value") == 0:
            self.skipped.append(plan.reason("epochs"))
            return None, 0
        source = self._source(material, keep, freeze, cost)
        views = len(source.views) - 1 if isinstance(source, ViewSource) else 0
        if 0 < freeze < keep:
            search.must_train_alike(chain, freeze)
        trial_graft = search.new_graft(material, keep, freeze, material.rows)
        one = seconds_an_example(
            trial_graft,
            source,
            material.targets,
            material.rows,
            search.recipe_for(material, keep, 1, material.rows),
        )

        def choose() -> tuple[int, str]:
            if self.settings.epochs is not None:
                return self.settings.epochs, "as asked (--epochs)"
            possible = search.affordable_epochs(
                self.left * 0.85,
                one,
                len(material.rows),
                refits=self.settings.refits,
                most=search.most_epochs(views, untrained=material.backbone.is_untrained),
            )
            if possible < search.LEAST_EPOCHS and not forced:
                each = duration(one * len(material.rows) * 2.4)
                return 0, f"no training: an epoch takes about {each}, {duration(self.left)} of time left"
            return max(1, possible), f"{one * 1000:.1f} ms an example and step, {duration(self.left)} left"

        epochs = plan.decide("epochs", choose)
        if epochs == 0:
            self.skipped.append(plan.reason("epochs"))
            return None, 0
        total = one * len(material.rows) * epochs * (1.0 + 1.25 * self.settings.refits)
        trained, _ = search.trained_parameters(trial_graft)
        live = is_live(self.ready, keep, freeze)
        seconds = self.costs.training(keep, freeze, epochs, live=live)
        self.ledger.predict("training", seconds=seconds, epochs=epochs)
        self.ledger.correct("training", seconds=total)
        share = float(work[keep] - work[freeze])
        full = total * float(work[keep]) / share if share > 0 and freeze else total
        changed = "; pictures are changed at random (--augment)" if search.augments(material, freeze) else ""
        if views:
            changed = f": each picture and {counted(views, 'changed view')} of it (--augment)"
        changed += mixtures_in_words(*alphas(self.settings, material.data.modality))
        bytes_stored = search.bytes_of_states(material, freeze) * (1 + views) if 0 < freeze < keep else 0
        stored = f" and {size(bytes_stored)} stored" if bytes_stored else ""
        blocks = f"block {keep}" if freeze + 1 == keep else f"blocks {freeze + 1} to {keep}"
        what = f"{blocks} and the head" if freeze < keep else "the head"
        parameters = f"training {what}, {trained:,} parameters"
        most = counted(epochs, "epoch")
        said = [f"{parameters}, up to {most}: about {duration(total)}{stored}{changed}"]
        if 0 < freeze < keep:
            said.append(f"full fine-tuning would take about {duration(full)}")
        console.line("Cost", *said)
        return source, epochs

    def _source(self, material: search.Material, keep: int, freeze: int, cost: Candidate) -> Source:
        """What training reads; stored first where blocks are frozen and pictures don't change each time."""
        if not 0 < freeze < keep or search.augments(material, freeze):
            return search.source_at(material, keep, freeze)[0]
        views, count = self.views(keep, freeze), len(material.targets)
        shelves = [
            states_shelf(
                self.ready.backbone,
                self.store,
                freeze,
                engine=self.settings.engine,
                precision=self.settings.precision,
                view=view,
            )
            for view in range(1 + views)
        ]
        self.ledger.predict("storing", seconds=cost.storing, disk=cost.stored)
        with (
            self.spending("storing", *shelves),
            self.console.progress("Storing", count * (1 + views), f"at cut {freeze}") as advance,
        ):
            source, reused = search.source_at(material, keep, freeze, views=views, advance=advance)
        for line in self.store.moved():
            self.console.line("Storing", line)
        share = self.costs.share(0, freeze)
        self.note_reuse("states", reused, reused * self.seconds_of_pass * share / count)
        return source

    def _tell_history(self, history: History, label: str) -> None:
        first, best = history.epochs[0], history.epochs[history.best]
        seconds = duration(sum(e.seconds for e in history.epochs))
        self.console.line(
            label,
            f"{counted(len(history.epochs) - 1, 'epoch')} in {seconds}, "
            f"best after {history.best}: {percent(first.validation_score, 1)} before, "
            f"{percent(best.validation_score, 1)} after, on the validation part ({history.stopped})",
        )
