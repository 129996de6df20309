"""The package as somebody gets it: built, installed with every extra into a new environment, and used there.

    python benchmarks/clean_install.py [--folder build/clean] [--python python3]

The wheel and the source distribution are built, and their metadata checked by the rules of the index. The
wheel is installed with ``[all]`` into an environment of its own (gigabytes). There, outside the checkout, the
program says its help, runs the demonstration, exports what came out, and imports what each extra is for. What
the source distribution builds is compared with the wheel, file by file. The exit status is 1 if it fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXTRAS = {
    "lightning": "import topgraft.integrations.lightning",
    "mlflow": "import mlflow, sqlalchemy, alembic",
    "onnx": "import onnx, onnxruntime, onnxscript",
    "openvino": "import openvino",
    "peft": "import peft.tuners.lora",
    "ray": "import ray, grpc",
    "s3": "import s3fs",
    "serve": "import topgraft.serve.app, topgraft.serve.running, topgraft.serve.metrics",
    "sound": "import soundfile; soundfile.available_formats()",
    "tensorboard": "import tensorboard",
}
"""What is run for each extra that ``all`` means."""
EXPORTS = ("onnx", "torch", "openvino", "state-dict")


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--folder", type=Path, default=ROOT / "build" / "clean", help="is made anew")
    options.add_argument("--python", default=sys.executable, help="of the new environment")
    given = options.parse_args(arguments)
    folder = given.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    away = folder / "away"
    away.mkdir(parents=True)
    began = time.monotonic()
    try:
        wheel, source = built(folder / "dist")
        check_metadata(wheel, source)
        say("metadata", f"{wheel.name} and {source.name} hold what the index asks for")
        program = installed(wheel, given.python, folder / "env")
        say("installed", f"{size_of(folder / 'env') / 1e9:.1f} GB in {time.monotonic() - began:.0f} s")
        same_wheel(program, wheel, source, folder / "again")
        say("source", "builds the same files as the wheel has")
        use(program, away)
    except (subprocess.CalledProcessError, ValueError) as problem:
        print(problem, file=sys.stderr)
        return 1
    say("done", f"after {time.monotonic() - began:.0f} s")
    return 0


def say(what: str, more: str) -> None:
    print(f"{what:<11}{more}", flush=True)


def run(*command: str | Path, cwd: Path, told: bool = False) -> str:
    """What a command writes; its errors are shown where it fails."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**plain, "TOPGRAFT_CACHE": str(cwd / "cache")},
        stdout=subprocess.PIPE,
        stderr=None if told else subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        print(done.stdout[-3000:], (done.stderr or "")[-3000:], file=sys.stderr)
        done.check_returncode()
    return done.stdout


def built(folder: Path) -> tuple[Path, Path]:
    """The wheel and the source distribution of this checkout."""
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, source


def metadata_of(distribution: Path) -> bytes:
    """What a wheel or a source distribution says of itself."""
    if distribution.suffix == ".whl":
        with zipfile.ZipFile(distribution) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            return archive.read(name)
    with tarfile.open(distribution) as archive:
        file = archive.extractfile(f"{distribution.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert file is not None
        return file.read()


def check_metadata(wheel: Path, source: Path) -> None:
    """Hold what both say of themselves against the rules of the index.

    Raises
    ------
    ValueError
        As :func:`must_be_valid`, or if the two differ.
    """
    told = metadata_of(wheel)
    if told != metadata_of(source):
        raise ValueError(f"{wheel.name} and {source.name} say different things of themselves.")
    must_be_valid(told)


def must_be_valid(told: bytes) -> None:
    """Refuse metadata that the index would refuse, or show otherwise than the README.

    Raises
    ------
    ValueError
        If a field is not as its version of the metadata has it, the description is not the README in
        Markdown, or an extra is missing.
    """
    from packaging.metadata import ExceptionGroup, Metadata

    try:
        known = Metadata.from_email(told, validate=True)
    except ExceptionGroup as problems:
        raise ValueError("; ".join(str(one) for one in problems.exceptions)) from None
    if known.description_content_type != "text/markdown":
        raise ValueError(f"The description is {known.description_content_type}, not Markdown.")
    if (known.description or "").strip() != (ROOT / "README.md").read_text(encoding="utf-8").strip():
        raise ValueError("The description is not the README.")
    if missing := sorted(set(EXTRAS) - set(known.provides_extra or ())):
        raise ValueError(f"There is no extra {missing[0]}.")


def installed(wheel: Path, python: str, folder: Path) -> Path:
    """The Python of a new environment with the wheel and every extra in it."""
    run(python, "-m", "venv", folder, cwd=wheel.parent)
    program = folder / "bin" / "python"
    run(program, "-m", "pip", "install", "-qq", f"{wheel}[all]", cwd=wheel.parent, told=True)
    run(program, "-m", "pip", "check", cwd=wheel.parent)
    return program


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def same_wheel(program: Path, wheel: Path, source: Path, folder: Path) -> None:
    """Build a wheel from the source distribution, and compare their files.

    Raises
    ------
    ValueError
        If a file is missing, or another one.
    """
    run(
        program,
        "-m",
        "pip",
        "wheel",
        "-qq",
        "--no-deps",
        "-w",
        folder,
        source,
        cwd=source.parent,
        told=True,
    )
    (again,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        sums = [{i.filename: i.CRC for i in archive.infolist() if "dist-info" not in i.filename}
                for archive in (one, other)]  # fmt: skip
    if differing := sorted(set(sums[0].items()) ^ set(sums[1].items())):
        raise ValueError(f"{differing[0][0]} in the wheel is not what the source distribution builds.")


def use(program: Path, away: Path) -> None:
    """Do what somebody does first, in a folder outside the checkout.

    Raises
    ------
    ValueError
        If another copy of the package was found than the installed one.
    """
    where = run(program, "-c", "import topgraft; print(topgraft.__file__)", cwd=away).strip()
    if not Path(where).is_relative_to(program.parent.parent):
        raise ValueError(f"{where} was imported, which is not what was installed.")
    tool = program.parent / "topgraft"
    if "predict" not in run(tool, "--help", cwd=away):
        raise ValueError("`topgraft --help` names no command predict.")
    for name, code in EXTRAS.items():
        run(program, "-c", code, cwd=away)
        say("extra", name)
    told = run(tool, "demo", "-o", "demo.topgraft", "--budget", "30", cwd=away, told=True)
    say("demo", next((line.strip() for line in told.splitlines() if "accuracy" in line), told[-200:]))
    for name in EXPORTS:
        run(tool, "export", "demo.topgraft", "--to", name, "-o", f"exported-{name}", cwd=away)
        say("export", name)


if __name__ == "__main__":
    sys.exit(main())
