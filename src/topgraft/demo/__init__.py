"""The data that comes with the package, for the demonstration, the guides and the tests.

Where it comes from, and its licence, is told in ``NOTICE.md`` beside this file.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def pictures() -> Path:
    """The folder of clip art: 645 WebP pictures, one folder for each of 6 classes.

    Returns
    -------
    Path
        A folder inside the installed package; read it, never write to it.

    Examples
    --------
    >>> sorted(folder.name for folder in pictures().iterdir())
    ['animals', 'buildings', 'food', 'plants', 'tools', 'transportation']
    """
    return _packaged("clipart")


def glosses() -> Path:
    """The table of glosses: 1,500 rows of 10 classes, with the columns ``text`` and ``label``.

    Returns
    -------
    Path
        A CSV file (UTF-8, one header row) inside the installed package; read it, never write to it.

    Examples
    --------
    >>> glosses().read_text(encoding="utf-8").splitlines()[0]
    'text,label'
    """
    return _packaged("glosses.csv")


def _packaged(name: str) -> Path:
    # pip always unpacks a wheel, so that each resource is a real file and its path lasts.
    return Path(str(files(__name__).joinpath(name)))
