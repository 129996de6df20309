"""Hours in minutes: a service under random requests, and fits in one process, whose memory must not grow.

    python benchmarks/soak.py [--minutes 10] [--write]

Two thirds of the time ``topgraft serve`` answers four clients at once, half of whose requests are not as they
must be; the rest of the time one process fits, saves, opens and predicts again and again. Memory is that of
the process (RSS): the median of the last quarter of the time beside that of the second quarter, since both
are warm then. The exit status is 1 if it grew by more than the bound, or a reply was lost or wrong.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from served import JSON, asked, saved_graft, serving  # noqa: E402 (lies in tests)
from small_networks import backbone_of, data_of_rows, small_rows  # noqa: E402 (the same)

BOUND = 0.10, 32 << 20
"""Memory may grow by this share, or by this many bytes, whichever is more: allocators keep some."""
PAGE = HERE.parent / "docs" / "reliability.md"
HEADING = "## Soak"
TEXTS = ("", "a", "a good film about people", "é" * 50, "bad " * 400, "\0", "\ud83d\ude00")


def memory(process: int | str = "self") -> int:
    """Resident bytes of a process."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def grown(samples: list[int]) -> tuple[int, int]:
    """The medians of the second and of the last quarter."""
    quarter = max(1, len(samples) // 4)
    return int(statistics.median(samples[quarter : 2 * quarter] or samples)), int(
        statistics.median(samples[-quarter:])
    )


def within(before: int, after: int) -> bool:
    """Whether that growth is within the bound."""
    return after - before <= max(BOUND[0] * before, BOUND[1])


def client(address: str, seed: int, end: float, found: Counter[str]) -> None:
    """Random requests, one after another, until the time is over."""
    stream = random.Random(seed)
    while time.monotonic() < end:
        kind = stream.choice(("texts", "texts", "texts", "odd", "bytes", "path"))
        try:
            if kind == "texts":
                sent = [stream.choice(TEXTS) for _ in range(stream.randint(1, 20))]
                reply = asked(address, "POST", "/predict", json.dumps({"texts": sent}), JSON)
                rows = reply.json if reply.status == 200 else []
                right = len(rows) == len(sent) and [row["input"] for row in rows] == [
                    str(i) for i in range(len(sent))
                ]
                found["right" if right else f"lost: {reply.status}"] += 1
                continue
            if kind == "odd":
                body: Any = json.dumps(
                    stream.choice([None, [], {}, {"texts": 1}, {"texts": []}, {"text": [""]}])
                )
            else:
                body = stream.randbytes(stream.choice((0, 10, 1000, 100_000)))
            path = stream.choice(("/predict", "/../etc/passwd", "/model/x")) if kind == "path" else "/predict"
            reply = asked(
                address, "POST", path, body, stream.choice((JSON, {}, {"content-type": "text/plain"}))
            )
            found["refused" if 400 <= reply.status < 500 else f"wrong: {reply.status}"] += 1
        except (OSError, http.client.HTTPException) as error:
            found[f"lost: {type(error).__name__}"] += 1


def soak_service(folder: Path, seconds: float) -> tuple[list[int], Counter[str]]:
    """Memory of a service while four clients ask it, and what they got."""
    from hub_cache import tiny_bert

    from topgraft.backbones import load

    (folder / "bert").mkdir()
    tiny_bert(folder / "bert")
    model = saved_graft(load(f"hf/{folder / 'bert'}"), folder / "small.topgraft", 2, 1)
    samples: list[int] = []
    found: Counter[str] = Counter()
    with serving(model) as service:
        end = time.monotonic() + seconds
        clients = [
            threading.Thread(target=client, args=(service.address, n, end, found), daemon=True)
            for n in range(4)
        ]
        for one in clients:
            one.start()
        while time.monotonic() < end:
            samples.append(memory(service.process.pid))
            time.sleep(0.5)
        for one in clients:
            one.join(120)
            if one.is_alive():
                found["lost: no reply"] += 1
    return samples, found


def soak_fits(folder: Path, seconds: float) -> tuple[list[int], int]:
    """Memory of this process after each of many fits with predictions, and their number."""
    import topgraft
    from topgraft.predict import Predictor, rows_of
    from topgraft.saved import open_model

    data = data_of_rows(60)
    samples: list[int] = []
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end or not samples:
        network = small_rows()
        model = saved_graft(backbone_of(network, data_example(data)), folder / f"fit-{number}", 2, 1)
        estimator = topgraft.TransferClassifier(network, freeze="all")
        estimator.fit(data_arrays(data), data.targets)
        estimator.predict(data_arrays(data)[:8])
        list(Predictor(open_model(model, module=network)).predict(rows_of(data)))
        samples.append(memory())
        number += 1
    return samples, number


def data_arrays(data: Any) -> Any:
    """The inputs as one array."""
    import numpy as np

    return np.stack([np.asarray(one) for one in data.inputs])


def data_example(data: Any) -> Any:
    """A batch of the inputs as a tensor."""
    import torch

    return torch.from_numpy(data_arrays(data)[:4])


def section(
    minutes: float, service: tuple[int, int], found: Counter[str], fits: tuple[int, int], n: int
) -> str:
    """What is written into the page."""

    def mb(size: int) -> str:
        return f"{size / 1e6:,.1f} MB"

    lost = sum(count for what, count in found.items() if what.startswith(("lost", "wrong")))
    return (
        f"{HEADING}\n\nWritten by `make soak` ({minutes:g} minutes). Memory is what the process held "
        "(RSS): the median of the second quarter of the time, and of the last.\n\n"
        "| what | how many | memory before | memory at the end | lost or wrong |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        f"| requests to a service, four clients | {sum(found.values()):,}, of them "
        f"{found['refused']:,} refused "
        f"| "
        f"{mb(service[0])} | {mb(service[1])} | {lost} |\n"
        f"| fits with predictions, saved and opened, in one process | {n:,} "
        f"| {mb(fits[0])} | {mb(fits[1])} | 0 |\n"
    )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--write", action="store_true", help="write the section of docs/reliability.md")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as root:
        import os

        os.environ["TOPGRAFT_CACHE"] = str(Path(root, "store"))
        fit_memory, fits = soak_fits(Path(root), given.minutes * 20)
        served_memory, found = soak_service(Path(root), given.minutes * 40)
    of_service, of_fits = grown(served_memory), grown(fit_memory)
    told = section(given.minutes, of_service, found, of_fits, fits)
    print(told, dict(found))
    if given.write:
        page = PAGE.read_text(encoding="utf-8")
        before, _, rest = page.partition(f"{HEADING}\n")
        _, following, later = rest.partition("\n## ")
        PAGE.write_text(f"{before.rstrip()}\n\n{told}{following}{later}", encoding="utf-8")
    wrong = [what for what in found if what.startswith(("lost", "wrong"))]
    return int(bool(wrong) or not within(*of_service) or not within(*of_fits))


if __name__ == "__main__":
    sys.exit(main())
