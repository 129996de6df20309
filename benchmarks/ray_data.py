"""The pass on a local Ray cluster: by Topgraft's workers, and by Ray Data with an actor pool, side by side.

    python benchmarks/ray_data.py
    python benchmarks/ray_data.py --rounds 5 --pictures FOLDER

Both do the same piece with the same batches on the same two actors of one core, and both are timed from the
start of their actors to the last result in this process. Needs ``topgraft[ray]``. Ratios are printed, and
whether the numbers are the same to the bit.
"""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from machine import machine_lines

import topgraft as tg
from topgraft.demo import pictures
from topgraft.features.batching import batches, lacking
from topgraft.features.passes import Passing, by_name, pooled_at_every_cut
from topgraft.features.reading import Batch
from topgraft.workers import working_on

ACTORS = 2
BATCH = 16


class Piece:
    """What an actor of Ray Data does with a row, which is a batch: Topgraft's own piece of a pass."""

    def __init__(self, passing: bytes) -> None:
        torch.set_num_threads(1)
        self.make = pickle.loads(passing).start()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The batch's number, and its arrays."""
        return {"number": row["number"], "arrays": pickle.dumps(self.make(pickle.loads(row["batch"])))}


def by_ray_data(backbone: tg.Backbone, data: tg.Data) -> dict[str, torch.Tensor]:
    """A pass by Ray Data, in the order of the batches."""
    import ray.data

    passing = Passing(backbone.chain[:], backbone.preprocess, partial(pooled_at_every_cut, backbone.chain))
    chunks = batches(data, lacking(data, frozenset()), batch_size=BATCH)
    rows = [
        {"number": number, "batch": pickle.dumps(Batch.of(data, chunk))}
        for number, chunk in enumerate(chunks)
    ]
    found = (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .map(
            Piece,
            fn_constructor_args=(pickle.dumps(passing),),
            compute=ray.data.ActorPoolStrategy(size=ACTORS),
            num_cpus=1,
        )
        .take_all()
    )
    ordered = sorted(found, key=lambda row: int(row["number"]))
    return dict(by_name([pickle.loads(row["arrays"]) for row in ordered]))


def by_topgraft(backbone: tg.Backbone, data: tg.Data) -> dict[str, torch.Tensor]:
    """A pass by Topgraft's workers, which stores what it makes as well."""
    with tempfile.TemporaryDirectory(prefix="topgraft-") as folder, working_on("ray"):
        features, _ = tg.one_pass(backbone, data, tg.Store(Path(folder)), batch_size=BATCH)
    once = lacking(data, frozenset())  # what is there twice passes once
    return {f"cut.{cut:03}": values[once] for cut, values in features.cuts.items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", default=str(pictures()), help="a folder of pictures by class")
    asked = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    data = tg.read(asked.pictures)
    backbone = tg.load(modality="picture")
    ray.init(num_cpus=ACTORS, include_dashboard=False, log_to_driver=False)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    seconds: dict[str, list[float]] = {"Topgraft": [], "Ray Data": []}
    made: dict[str, dict[str, torch.Tensor]] = {}
    for _ in range(asked.rounds):
        for name, one in (("Topgraft", by_topgraft), ("Ray Data", by_ray_data)):
            began = time.monotonic()
            made[name] = one(backbone, data)
            seconds[name].append(time.monotonic() - began)
    ray.shutdown()
    same = all(torch.equal(made["Ray Data"][name], values) for name, values in made["Topgraft"].items())
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        print(f"{name}: {', '.join(f'{v:.1f}' for v in values)} s, median {medians[name]:.1f} s")
    print(f"Ray Data takes {medians['Ray Data'] / medians['Topgraft']:.2f} of Topgraft's time")
    print(f"{len(data)} pictures; the numbers are {'the same to the bit' if same else 'NOT the same'}")
    print("\n".join(machine_lines(("torch", "ray"))))
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
