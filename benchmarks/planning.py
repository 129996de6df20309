"""What 10 million and 1 billion examples take, from costs an example measured here; writes docs/planning.md.

    python benchmarks/planning.py
    python benchmarks/planning.py --core-hour 0.05 --picture-bytes 200e3 --again

Costs are seconds of the processor, by one thread, so that other programs on the machine change them little.
They are kept in ``build/planning.json``; ``--again`` measures anew.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from machine import ROOT, machine_lines, markdown_table

BACKBONE = "timm/tf_efficientnet_lite0"
SIZES = (10_000_000, 1_000_000_000)
CLUSTERS = (1, 16, 256)
"""Machines."""
CORES = 16
"""Of each."""
PICTURES = 128
TURNS = 3
CLASSES, FOLDS = 10, 5
DISPATCHED = 400
SAMPLE = 50_000
PACKAGES = ("topgraft", "torch", "timm", "numpy", "ray")


@dataclass(frozen=True)
class Measured:
    """Costs of an example: seconds of one core, and bytes."""

    bytes_read: float
    pixels: float
    reading: float
    decoding: float
    network: float
    network_openvino: float | None
    pooled: int
    states: dict[str, int]
    probing: float
    dispatching: float | None
    listed: float
    macs: float
    machine: tuple[str, ...] = ()


@dataclass(frozen=True)
class Assumed:
    """What is not measured."""

    core_hour: float = 0.04
    gigabyte_month: float = 0.02
    picture_bytes: float = 110e3
    disk: float = 1e9
    memory: float = 64e9


def seconds_of(work: Callable[[], Any], turns: int = TURNS) -> float:
    """Of the processor, the least of several turns."""
    times = []
    for _ in range(turns):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def measure() -> Measured:
    """On the packaged pictures, by one thread."""
    import numpy as np
    import torch

    import topgraft as tg
    from topgraft import demo
    from topgraft.features.batching import batches
    from topgraft.features.engine import engine_of
    from topgraft.features.openvino import is_installed
    from topgraft.features.passes import layouts_of
    from topgraft.features.reading import decoded
    from topgraft.pooling import width
    from topgraft.probe import Features, probe

    torch.set_num_threads(1)
    data = tg.read(demo.pictures())
    reading = seconds_of(lambda: tg.read(demo.pictures()), 1) / len(data)
    some = data.subset(range(0, len(data), len(data) // PICTURES))
    some = some.subset(range(PICTURES))
    backbone = tg.load(BACKBONE)
    chain = backbone.chain
    rows = batches(some, range(PICTURES), batch_size=16)

    def decode() -> list[dict[str, torch.Tensor]]:
        return [backbone.preprocess.batch(decoded(backbone.preprocess, some, chunk)) for chunk in rows]

    inputs, layouts = decode(), layouts_of(chain)

    def network(name: str) -> float:
        engine = engine_of(chain[: len(chain)], name=name)
        engine.pooled(inputs[0], layouts)
        return seconds_of(lambda: [engine.pooled(one, layouts) for one in inputs]) / PICTURES

    widths = [width(block) for block in chain]
    noise = torch.Generator().manual_seed(0)

    def probing(count: int) -> float:
        cuts = {k: torch.randn(count, w, generator=noise) for k, w in enumerate(widths, start=1)}
        targets = torch.arange(count) % CLASSES
        folds = np.arange(count) // CLASSES % FOLDS
        return seconds_of(lambda: probe(Features(cuts, "made up"), targets, folds, CLASSES), 1)

    few, many = 2_000, 4_000  # more than the widest cut has columns, so that the slope is that of large data
    return Measured(
        bytes_read=sum(Path(path).stat().st_size for path in some.inputs) / PICTURES,
        pixels=float(np.mean([np.prod(some.decode(i).size) for i in range(PICTURES)])),
        reading=reading,
        decoding=seconds_of(decode) / PICTURES,
        network=network("torch"),
        network_openvino=network("openvino") if is_installed() else None,
        pooled=4 * sum(widths),
        states={block.name: 4 * sum(int(np.prod(shape)) for shape in block.shapes) for block in chain},
        probing=max(0.0, probing(many) - probing(few)) / (many - few),
        dispatching=dispatching(),
        listed=listed(data),
        macs=float(sum(block.macs for block in chain)),
        machine=tuple(machine_lines(PACKAGES)),
    )


def listed(data: Any) -> float:
    """Bytes of memory of an example in the list: its name, path, digest, target, group."""
    strings = sum(
        sys.getsizeof(data.names[i]) + sys.getsizeof(str(data.inputs[i])) + sys.getsizeof(data.digests[i])
        for i in range(len(data))
    )
    pointers, numbers = 3 * 8, 2 * 8
    return strings / len(data) + pointers + numbers


def dispatching() -> float | None:
    """Seconds of the leading process for a batch: sent, taken back with as much as the pass gives."""
    from importlib.util import find_spec

    if find_spec("ray") is None:
        return None
    from topgraft.workers.connecting import connected

    task = Giving()
    with connected(None) as workers:
        next(workers.in_order(task, items(1)))
        return seconds_of(lambda: list(workers.in_order(task, items(DISPATCHED))), 1) / DISPATCHED


def items(count: int) -> Iterator[Any]:
    """Batches of texts as long as paths are."""
    import topgraft as tg
    from topgraft.features.reading import Batch

    data = tg.read([f"{i:0100}" for i in range(16)])
    return (Batch.of(data, range(16)) for _ in range(count))


@dataclass(frozen=True)
class Giving:
    """A task that gives what the pass gives of a batch, without computing it."""

    cuts: int = 18
    width: int = 200

    def start(self) -> Callable[[Any], Any]:
        import torch

        given = {f"cut.{cut:03}": torch.zeros(16, self.width) for cut in range(self.cuts)}
        return lambda _batch: given


def amount(number: float, unit: str) -> str:
    """A number with its unit; bytes with the prefix that suits them."""
    if unit != "B":
        return (f"{number:,.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}").strip()
    for prefix, step in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= step:
            return f"{number / step:,.1f} {prefix}"
    return f"{number:.0f} B"


def hours(seconds: float) -> str:
    """Seconds in hours or days."""
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 100 * 3600 else f"{seconds / 86400:,.0f} days"


def fastest(m: Measured) -> float:
    """Seconds of the network an example, by the faster engine."""
    return min(m.network, m.network_openvino or m.network)


PAGE = """\
# Planning: ten million examples, and a billion

Written by `make planning` (`benchmarks/planning.py`): costs of an example as measured here, and what follows
from them by multiplication. Nothing of this size was run.

## Measured

The packaged pictures ({bytes_read} and {pixels:,.0f} thousand pixels each on average) through all {cuts} cuts
of EfficientNet-Lite0 ({macs:,.0f} million multiply-adds), in seconds of the processor, one thread.

{measured}

{machine}

## Assumed

Options of `benchmarks/planning.py` change these; none is anybody's price or promise.

{assumed}

Each example is taken to cost the same, and all cores to be as quick as the one here and never to wait.

{sizes}

## What breaks first

In this order, with what to do about it.

1. **The probes.** They read the features of all cuts many times, from a file that the system holds in memory
   as far as there is room: {memory} / {pooled} = {held:,.1f} million examples. Beyond, the disk makes them
   wait. Measure depth on a sample: of {sample:,} examples the standard error of an accuracy is at most 0.2
   points, and their pass takes {sample_hours:.1f} core-hours.
2. **Reading, on one machine.** `read` decodes each example once to find what is damaged or there twice:
   {ten:,} x {reading:.1f} ms = {read_hours:,.0f} hours of one core. Give the data in parts, one run each.
3. **The list of examples.** {memory} / {listed} = {named:,.0f} million examples in the memory of the leading
   machine; a billion would take {billion}. Their thumbnails, 3 kB each, lie in a file.
{leading}

So ten million pictures are within reach of one leading machine, with depth measured on a sample. A billion
are not, as Topgraft is: reading, and the list of examples, would have to be in parts.
What can be done today are runs on parts of the data that share one store: stored activations are found by the
content of the example and by what made them, whichever run it was.
"""
LEADING = """\
4. **The leading process.** It hands out and takes back {rate:,.0f} examples a second, which keeps
   {cores:,.0f} cores busy; more of them wait for it."""


def page(m: Measured, a: Assumed) -> str:
    """The page, each number with where it comes from."""
    each = m.decoding + fastest(m)
    smallest = min(m.states, key=lambda name: m.states[name])
    largest = max(m.states, key=lambda name: m.states[name])
    two = f"`{smallest}`, and largest, `{largest}`"
    openvino = "not installed" if m.network_openvino is None else f"{1000 * m.network_openvino:.1f} ms"
    sent = "not measured" if m.dispatching is None else f"{1000 * m.dispatching:.1f} ms"
    costs = {
        "reading a folder: bytes, digest, near duplicates": f"{1000 * m.reading:.1f} ms",
        "decoding and preprocessing": f"{1000 * m.decoding:.1f} ms",
        "the network, pooled at every cut, PyTorch in fp32": f"{1000 * m.network:.1f} ms",
        "the same by OpenVINO in fp32": openvino,
        f"the probes: {len(m.states)} cuts, {FOLDS} folds, {CLASSES} classes": f"{1000 * m.probing:.2f} ms",
        "the leading process on Ray, for a batch of 16": sent,
        "stored, pooled at every cut, float32": amount(m.pooled, "B"),
        f"stored, a state in float32: smallest, {two}": amounts(m, 1),
        "the same in bf16": amounts(m, 2),
        "the list of examples, in memory": amount(m.listed, "B"),
    }
    assumptions = {
        "a core for an hour (`--core-hour`)": f"{a.core_hour:g} of a currency",
        "a gigabyte stored for a month (`--gigabyte-month`)": f"{a.gigabyte_month:g} of it",
        "a picture's file (`--picture-bytes`)": amount(a.picture_bytes, "B"),
        "a file system that all machines share (`--disk`)": f"{amount(a.disk, 'B')} a second",
        "memory of the leading machine (`--memory`)": amount(a.memory, "B"),
        "cores of a machine": str(CORES),
    }
    leading = ""
    if m.dispatching is not None:
        rate = 16 / m.dispatching
        leading = LEADING.format(rate=rate, cores=rate * each)
    return PAGE.format(
        bytes_read=amount(m.bytes_read, "B"),
        pixels=m.pixels / 1e3,
        cuts=len(m.states),
        macs=m.macs / 1e6,
        measured="\n".join(
            markdown_table(["of an example", "measured"], [list(row) for row in costs.items()])
        ),
        machine="\n".join(m.machine),
        assumed="\n".join(markdown_table(["assumed", "value"], [list(row) for row in assumptions.items()])),
        sizes="\n\n".join(section(count, m, a) for count in SIZES),
        memory=amount(a.memory, "B"),
        pooled=amount(m.pooled, "B"),
        held=a.memory / m.pooled / 1e6,
        sample=SAMPLE,
        sample_hours=SAMPLE * each / 3600,
        ten=SIZES[0],
        reading=1000 * m.reading,
        read_hours=SIZES[0] * m.reading / 3600,
        listed=amount(m.listed, "B"),
        named=a.memory / m.listed / 1e6,
        billion=amount(1e9 * m.listed, "B"),
        leading=leading,
    )


def amounts(m: Measured, parts: int) -> str:
    """The smallest and the largest state, or a part of each."""
    low, high = min(m.states.values()), max(m.states.values())
    return f"{amount(low / parts, 'B')}, {amount(high / parts, 'B')}"


def section(count: int, m: Measured, a: Assumed) -> str:
    """What so many examples take, with the arithmetic."""
    each, state = m.decoding + fastest(m), min(m.states.values()) / 2
    engine = "PyTorch" if fastest(m) == m.network else "OpenVINO"
    passing, probing = count * each / 3600, count * m.probing / 3600
    stored = count * (m.pooled + state)
    rows = [
        ["read, by the workers", f"{count:,} x {amount(a.picture_bytes, 'B')}", count * a.picture_bytes, "B"],
        [f"the pass, by {engine}", f"{count:,} x {1000 * each:.1f} ms / 3600 s", passing, "core-hours"],
        ["stored, pooled", f"{count:,} x {amount(m.pooled, 'B')}", count * m.pooled, "B"],
        ["stored, smallest state in bf16", f"{count:,} x {amount(state, 'B')}", count * state, "B"],
        ["moved to the leading machine", "what is stored", stored, "B"],
        ["the probes", f"{count:,} x {1000 * m.probing:.2f} ms / 3600 s", probing, "core-hours"],
        ["money, computing", f"core-hours x {a.core_hour:g}", (passing + probing) * a.core_hour, ""],
        ["money, a month of the store", f"GB x {a.gigabyte_month:g}", stored / 1e9 * a.gigabyte_month, ""],
    ]
    table = [[what, how, amount(number, unit)] for what, how, number, unit in rows]
    limits = {"the file system": count * a.picture_bytes / a.disk}
    if m.dispatching is not None:
        limits["the leading process"] = count / 16 * m.dispatching
    times = []
    for machines in CLUSTERS:
        every = {"computing": count * each / (machines * CORES), **limits}
        slowest = max(every, key=lambda name: every[name])
        times.append([f"{machines:,}", *map(hours, every.values()), hours(every[slowest]), slowest])
    header = ["machines", "computing", *limits, "the pass takes", "held up by"]
    said = [*markdown_table(["what", "how", "comes to"], table), "", *markdown_table(header, times)]
    return "\n".join([f"## {count:,} examples", "", *said])


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, value in asdict(Assumed()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=value)
    parser.add_argument("--again", action="store_true", help="measure anew")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "planning.md")
    told = vars(parser.parse_args(None if arguments is None else list(arguments)))
    place, out, again = ROOT / "build" / "planning.json", told.pop("page"), told.pop("again")
    if again or not place.is_file():
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps(asdict(measure()), indent=1), encoding="utf-8")
    measured = Measured(**json.loads(place.read_text(encoding="utf-8")))
    with tempfile.NamedTemporaryFile("w", dir=out.parent, delete=False, encoding="utf-8") as file:
        file.write(page(measured, Assumed(**told)))
    Path(file.name).replace(out)


if __name__ == "__main__":
    main()
