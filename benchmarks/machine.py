"""What a measurement ran on, without names of machines or paths."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve")
"""What decides how fast a processor multiplies matrices."""


def machine_lines(packages: tuple[str, ...]) -> list[str]:
    """Cores, instructions and versions, as items of a list in Markdown."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags = " ".join(flag for flag in FLAGS if flag in _flags()) or "unknown"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    torch_uses = f"{torch.backends.cpu.get_cpu_capability()} and {torch.get_num_threads()} threads"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    return [
        f"- {cores} cores, {platform.machine()} with {flags}; torch uses {torch_uses}; {gpu}",
        f"- on average {load:.1f} programs wanted a core when this was written; over {cores} make all slower",
        f"- Python {platform.python_version()}, {versions}",
    ]


def has_bf16_units() -> bool:
    """Whether the processor has units that multiply matrices of bf16 numbers, not vectors only."""
    return "amx_bf16" in _flags() or {"asimd", "bf16"} <= _flags()


def _flags() -> set[str]:
    """Words of what Linux tells of the processor; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    return set(info.read_text(encoding="utf-8").split()) if info.is_file() else set()


def code_digest(*places: str) -> str:
    """SHA-256 (hex, 16 digits) over Python files of this repository, given by themselves or by folder."""
    digest = hashlib.sha256()
    for place in places:
        given = ROOT / place
        for path in sorted(given.rglob("*.py")) if given.is_dir() else [given]:
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def markdown_table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table in Markdown; the first column to the left, numbers to the right."""
    line = "| " + " | ".join(["---", *["---:"] * (len(header) - 1)]) + " |"
    return ["| " + " | ".join(cells) + " |" for cells in [header]] + [
        line,
        *("| " + " | ".join(cells) + " |" for cells in rows),
    ]
