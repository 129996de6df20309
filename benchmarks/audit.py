"""Known vulnerabilities of what Topgraft runs on, and a bill of materials (CycloneDX) in ``build/sbom.json``.

    python benchmarks/audit.py

Audited is what is installed here of the runtime dependencies and of all that they need. The exit status is 1
if something is known to be vulnerable, and also if the service that knows did not answer for some of it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

ROOT = Path(__file__).parent.parent
SBOM = ROOT / "build" / "sbom.json"


def needed(name: str = "topgraft") -> dict[str, str]:
    """Versions by name of what a package needs at run time, and of what that needs, as installed here.

    Examples
    --------
    >>> sorted({"numpy", "torch", "topgraft", "pytest"} & needed().keys())
    ['numpy', 'torch']
    """
    from packaging.requirements import Requirement

    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        for line in requires(waiting.pop()) or []:
            one = Requirement(line)
            key = re.sub(r"[-_.]+", "-", one.name).lower()
            if key in found or (one.marker is not None and not one.marker.evaluate({"extra": ""})):
                continue
            try:
                found[key] = version(one.name)
            except PackageNotFoundError:
                continue
            waiting.append(one.name)
    return found


def bill(place: Path = SBOM) -> Path:
    """Write the bill of materials; everything in it is needed at run time."""
    place.parent.mkdir(parents=True, exist_ok=True)
    listed = "".join(f"{name}=={number}\n" for name, number in sorted(needed().items()))
    command = [
        sys.executable,
        "-m",
        "cyclonedx_py",
        "requirements",
        "-",
        "--pyproject",
        ROOT / "pyproject.toml",
    ]
    subprocess.run([*command, "--output-reproducible", "-o", place], input=listed, text=True, check=True)
    return place


def main() -> int:
    components = json.loads(bill().read_text(encoding="utf-8"))["components"]
    print(f"{len(components)} packages are needed at run time: {SBOM}")
    listed = SBOM.with_name("runtime.txt")
    listed.write_text("".join(f"{name}=={number.partition('+')[0]}\n" for name, number in needed().items()))
    # --strict: a package that the service does not answer for counts as not audited, not as sound
    command = [sys.executable, "-m", "pip_audit", "--strict", "--no-deps", "--disable-pip", "-r", listed]
    done = subprocess.run([*command, "--progress-spinner", "off"], capture_output=True, text=True)
    print(done.stdout, done.stderr[-2000:])
    if done.returncode:
        print("Not audited, or not clean: see above. Without the service nothing is known.", file=sys.stderr)
    return int(done.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
