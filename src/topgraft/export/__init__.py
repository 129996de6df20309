"""A saved graft for other runtimes, each of which opens and checks what is for it before that appears."""

from __future__ import annotations

from topgraft.export.exporting import FORMATS as FORMATS
from topgraft.export.exporting import Export as Export
from topgraft.export.exporting import export as export
