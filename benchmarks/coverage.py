"""Every network that can be had becomes a chain, and every cut of it is checked by other means.

    python benchmarks/coverage.py                          all cases; writes docs/coverage.md
    python benchmarks/coverage.py --only timm --names resnet18 vit_tiny_patch16_224
    ALL=1 GRADIENTS=all python benchmarks/coverage.py      every name of timm, gradients at every cut

Each case runs in a process of its own, with a limit of time and memory. Its result is kept in
``build/coverage``: a killed run goes on where it was. The page is written if nothing was left out by options.
The exit status is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from machine import ROOT, code_digest

LIBRARIES = ("timm", "torchvision", "transformers", "own")
MEMORY_GIB = 24
"""For all cases that run at once."""
TOO_LARGE = "needs too much memory"
TIME_LIMIT = 1200.0
"""Seconds for a case: torchvision's maxvit_t alone takes 900 on one core."""
CODE = ("cases", "checks", "modes", "moments")
"""Programs beside this one that decide what a result says."""


def cases_of(library: str) -> Any:
    """The module that gives the cases of a library."""
    return importlib.import_module(f"cases_{library}")


def key_of(library: str, *, all_gradients: bool) -> dict[str, Any]:
    """What a result depends on."""
    package = {"own": "torch"}.get(library, library)
    own = {"own": ("own_networks",), "transformers": ("transformers_settings",)}.get(library, ())
    programs = [f"benchmarks/{name}.py" for name in (*CODE, f"cases_{library}", *own)]
    return {
        "code": code_digest("src/topgraft/chain", *programs),
        package: version(package),
        "all_gradients": all_gradients,
    }


def chosen(libraries: Sequence[str], names: Sequence[str], build: Path) -> dict[str, list[str]]:
    """Per library the names of its cases."""
    found: dict[str, list[str]] = {}
    for library in libraries:
        cases = cases_of(library)
        if names:
            known = set(cases.names())
            found[library] = [name for name in names if name in known]
        elif library == "timm" and os.environ.get("ALL") != "1":
            found[library] = [name for _, name in sorted(cases.smallest(build).values())]
        else:
            found[library] = list(cases.names())
    if missing := set(names) - {name for some in found.values() for name in some}:
        raise SystemExit(f"no case of {', '.join(libraries)} is called {', '.join(sorted(missing))}")
    return found


def measure(library: str, name: str, *, all_gradients: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Build one case, make its chain, check it; in this process."""
    import torch
    from cases import Unsupported, enlivened
    from checks import Subject, check
    from moments import not_cut_apart

    from topgraft.chain import Chain
    from topgraft.errors import TopgraftError, is_out_of_memory

    torch.set_num_threads(1)
    began = time.monotonic()
    result: dict[str, Any] = {"library": library, "name": name, "note": "", "stage": "building"}
    try:
        case = cases_of(library).build(name)
        enlivened(case.network, case.inputs)
        result |= {
            "note": case.note,
            "fewest": case.fewest,
            "parameters": sum(p.numel() for p in case.network.parameters()),
        }
        result["stage"] = "making the chain"
        chain = Chain.of(case.network, case.inputs)
        result |= {
            "blocks": [block.name for block in chain],
            "tuples": [block.name for block in chain if block.others],
            "refused": [[one.block, one.reason] for one in chain.refused],
            "chain_seconds": time.monotonic() - began,
            "stage": "checking",
        }
        result["listed"], result["merged"] = not_cut_apart(chain, case.inputs)
        subject = Subject(case.network, chain, case.inputs, case.padded)
        found = check(subject, all_gradients=all_gradients, say=say)
        result |= {"outcome": "wrong" if found.wrong else "equal", **asdict(found)}
    except Unsupported as reason:
        result |= {"outcome": "left out", "reason": str(reason)}
    except TopgraftError as error:
        said = {"outcome": "refused", "reason": str(error)}
        if is_out_of_memory(error):
            said = {"outcome": "left out", "reason": f"{TOO_LARGE}: {str(error)[:200]}"}
        result |= said
    except Exception as error:  # noqa: BLE001 (whatever happened to this case, the others go on)
        if is_out_of_memory(error):
            result |= {"outcome": "left out", "reason": f"{TOO_LARGE}: {str(error)[:200]}"}
        else:
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {str(error)[:600]}"
            said += f" ({Path(where.filename).name}, line {where.lineno})"
            result |= {"outcome": "failed", "reason": said}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return result | {"seconds": time.monotonic() - began, "memory_gib": memory}


def write(file: Path, record: Mapping[str, Any]) -> None:
    """All of it or nothing."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps(record, indent=1), encoding="utf-8")
    new.replace(file)


def measure_apart(
    library: str, name: str, file: str, key: Mapping[str, Any], gib: float, threads: int
) -> None:
    """The same as a process of its own, within the limit of memory, on so many cores."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    limit = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    progress = Path(file).with_suffix(".at")
    result = measure(library, name, all_gradients=key["all_gradients"], say=progress.write_text)
    write(Path(file), {"key": dict(key), **result})


def kept(file: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """The result in a file, if it is of this key; what failed is tried again."""
    if not file.is_file():
        return None
    known = json.loads(file.read_text(encoding="utf-8"))
    return known if known["key"] == key and known["outcome"] != "failed" else None


def result_of(
    library: str, name: str, key: Mapping[str, Any], file: Path, limits: tuple[float, float, int]
) -> dict[str, Any]:
    """The result of one case, measured apart within limits of time (s), memory (GiB) and cores."""
    file.unlink(missing_ok=True)
    progress = file.with_suffix(".at")
    began = time.monotonic()
    process = multiprocessing.get_context("forkserver").Process(
        target=measure_apart, args=(library, name, str(file), dict(key), *limits[1:])
    )
    process.start()
    process.join(limits[0])
    outcome = "failed"
    if process.exitcode is None:
        process.kill()
        process.join()
        reason = f"not done in {limits[0]:g} s"
    elif process.exitcode == -signal.SIGKILL:
        outcome, reason = "left out", f"{TOO_LARGE}: the system stopped it"
    else:
        reason = f"its process ended with status {process.exitcode}"
    at = progress.read_text(encoding="utf-8") if progress.is_file() else "the chain was not made"
    progress.unlink(missing_ok=True)
    if not file.is_file():
        seconds = time.monotonic() - began
        record = {"key": dict(key), "library": library, "name": name, "note": "", "outcome": outcome}
        write(file, record | {"reason": f"{reason} ({at})", "seconds": seconds})
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def run(
    wanted: Mapping[str, Sequence[str]],
    build: Path,
    *,
    jobs: int,
    all_gradients: bool,
    time_limit: float,
    say: Callable[[str], None],
) -> dict[str, list[dict[str, Any]]]:
    """Results of every case, in the order given; what needs more than a job's share of memory runs last."""
    build.mkdir(parents=True, exist_ok=True)
    tasks = [(library, name) for library, names in wanted.items() for name in names]
    keys = {library: key_of(library, all_gradients=all_gradients) for library in wanted}
    files = {task: build / f"{task[0]}-{task[1].replace('/', '_')}.json" for task in tasks}
    done = {t: known for t in tasks if (known := kept(files[t], keys[t[0]])) is not None}
    if done:
        say(f"{len(done)} of {len(tasks)} are there from before")

    def measured(some: Sequence[tuple[str, str]], together: int) -> None:
        limits = (time_limit, MEMORY_GIB / together, max(1, (os.cpu_count() or 1) // together))
        with ThreadPoolExecutor(together) as workers:
            waiting = {workers.submit(result_of, *t, keys[t[0]], files[t], limits): t for t in some}
            for future in as_completed(waiting):
                done[waiting[future]] = future.result()
                say(f"{len(done)} of {len(tasks)}  {line_of(future.result())}")

    measured([t for t in tasks if t not in done], jobs)
    if jobs > 1 and (large := [t for t in tasks if done[t].get("reason", "").startswith(TOO_LARGE)]):
        say(f"{len(large)} again, alone: they need more memory than {MEMORY_GIB / jobs:g} GiB")
        measured(large, 1)
    return {library: [done[library, name] for name in names] for library, names in wanted.items()}


def line_of(result: Mapping[str, Any]) -> str:
    """One case in a line."""
    told = f"{result['library']} {result['name']}: {result['outcome']}"
    if "blocks" in result:
        told += f", {len(result['blocks'])} cuts, {len(result['merged'])} of {result['listed']} blocks merged"
    if result.get("wrong"):
        told += f"; {len(result['wrong'])} wrong, such as {result['wrong'][0]}"
    return f"{told} {result.get('reason', '')[:300]}, {result['seconds']:.0f} s"


def installed(libraries: Sequence[str]) -> Iterator[str]:
    """Those libraries for which there are cases here."""
    for library in libraries:
        if (Path(__file__).parent / f"cases_{library}.py").is_file():
            yield library


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--names", nargs="+", default=[], help="of cases; all by default")
    parser.add_argument("--jobs", type=int, default=2, help="how many cases at once; they share the cores")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT, help="seconds for a case")
    parser.add_argument(
        "--build", type=Path, default=ROOT / "build" / "coverage", help="where results are kept"
    )
    parser.add_argument("--out", type=Path, help="the page; docs/coverage.md if all cases were asked for")
    parser.add_argument("--anew", action="store_true", help="forget what was done before")
    asked = parser.parse_args()
    if asked.anew:
        for file in asked.build.glob("*-*.json"):
            file.unlink()
    from coverage_page import document

    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["MKL_NUM_THREADS"] = "1"
    os.environ["HF_HUB_OFFLINE"] = "1"
    # Freed memory is used again and not given back: making its pages anew takes longer than the sums.
    os.environ |= {
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**34),
        "MALLOC_TOP_PAD_": str(2**26),
    }
    multiprocessing.set_forkserver_preload(["torch", "timm", "torchvision", "transformers", "topgraft.chain"])
    results = run(
        chosen(list(installed(asked.only)), asked.names, asked.build),
        asked.build,
        jobs=asked.jobs,
        all_gradients=os.environ.get("GRADIENTS") == "all",
        time_limit=asked.time_limit,
        say=lambda line: print(line, flush=True),
    )
    page, holds = document(results, whole=not asked.names)
    everything = not asked.names and set(asked.only) == set(LIBRARIES)
    out = asked.out or (ROOT / "docs" / "coverage.md" if everything else asked.build / "coverage.md")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    print(page.split("\n## ", 2)[1] if asked.names else f"written to {out}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
