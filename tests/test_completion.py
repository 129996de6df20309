"""What a shell is offered, by the program that it asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_import import modules_after
from typer.main import get_command

from topgraft import cli, completion, settings
from topgraft.data.types import MODALITIES, TASKS
from topgraft.export import FORMATS
from topgraft.tracking import NEEDED


def offered(words: str, folder: Path, **more: str) -> list[str]:
    """What bash is offered for the last of the words."""
    environment = {
        **os.environ,
        "_TOPGRAFT_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        **more,
    }
    program = Path(sys.executable).parent / "topgraft"
    done = subprocess.run([program], cwd=folder, env=environment, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.stdout.split()


def test_the_values_offered_are_those_that_are_taken() -> None:
    taken = {
        "augment": settings.AUGMENTATIONS,
        "class_weights": settings.CLASS_WEIGHTS,
        "engine": settings.ENGINE_CHOICES,
        "precision": settings.PRECISION_CHOICES,
        "prefer": settings.PREFERENCES,
        "resize": settings.RESIZE_CHOICES,
        "sampling": settings.SAMPLINGS,
        "task": TASKS,
        "to": tuple(FORMATS),
        "track": tuple(NEEDED),
        "modality": tuple(m for m in MODALITIES if m not in ("array", "row")),
    }
    assert {name: tuple(completion.CHOICES[name]) for name in taken} == taken


def test_every_list_completes_an_option_of_some_command() -> None:
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]  # it is a group
    names = {p.name for command in commands.values() for p in command.params if p.param_type_name == "option"}
    assert completion.CHOICES.keys() <= names


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("topgraft fit photos --engine ", {"auto", "torch", "openvino", "cuda"}),
        ("topgraft probe photos --precision b", {"bf16"}),
        ("topgraft export model --to o", {"onnx", "openvino"}),
        ("topgraft fit photos --track te", {"tensorboard"}),
        ("topgraft back", {"backbones"}),
        ("topgraft fit photos --no-con", {"--no-config"}),
        ("topgraft compare photos --backbone r", {"rows/resnet"}),
    ],
)
def test_a_shell_is_offered_what_fits(words: str, expected: set[str], tmp_path: Path) -> None:
    assert set(offered(words, tmp_path)) == expected


def test_backbones_at_hand_are_offered_whatever_the_folder_s_file_says(tmp_path: Path) -> None:
    (tmp_path / "topgraft.toml").write_text("no toml")
    (tmp_path / "mine.topgraft").mkdir()
    (tmp_path / "mine.topgraft" / "graft.json").touch()
    (tmp_path / "hub" / "models--org--small-bert").mkdir(parents=True)
    (tmp_path / "hub" / "models--timm--resnet18.a1").mkdir()
    found = offered("topgraft fit photos --backbone ", tmp_path, HF_HUB_CACHE=str(tmp_path / "hub"))
    assert {"timm/tf_efficientnet_lite0", "mine.topgraft", "hf/org/small-bert", "timm/resnet18.a1"} <= set(
        found
    )


def test_nothing_heavy_is_loaded_for_it() -> None:
    loaded = modules_after("from topgraft import cli, completion; completion.backbones('')")
    assert loaded.isdisjoint({"torch", "timm", "numpy", "transformers"})


def test_a_script_is_shown_for_the_shell(tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "topgraft"
    line = f"'{program}' --show-completion bash; exit $?"  # a shell is found among the parents: be one
    shown = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert "_TOPGRAFT_COMPLETE=complete_bash" in shown.stdout
