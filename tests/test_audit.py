"""The bill of materials that goes with a release."""

from __future__ import annotations

import json
from pathlib import Path

from audit import bill, needed

from topgraft.versions import versions


def test_what_is_needed_at_run_time_is_listed_with_its_version_and_nothing_else() -> None:
    found = needed()
    assert found["torch"] == versions()["torch"]
    assert {"numpy", "markupsafe", "transformers"} <= found.keys()  # markupsafe by way of jinja2
    assert not {"pytest", "ruff", "fastapi", "topgraft"} & found.keys()


def test_the_bill_of_materials_holds_each_of_them(tmp_path: Path) -> None:
    document = json.loads(bill(tmp_path / "sbom.json").read_text(encoding="utf-8"))
    assert document["bomFormat"] == "CycloneDX"
    assert {one["name"]: one["version"] for one in document["components"]} == needed()
