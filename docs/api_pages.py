"""API pages from the docstrings: ``python docs/api_pages.py FOLDER``, or `make docs`, writes them as HTML with pdoc."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc
from pdoc import render
from pdoc.extract import walk_specs

import dsg_ros

LINKED = ("dsg_ros", r"!dsg_ros\.(.*\.)?_")
"""What pdoc finds by itself, and leads to: not what a package with an ``__all__`` keeps behind that."""


def modules() -> list[str]:
    """Names of the modules that have a page: of all whose name, and whose package's, begins with no underscore.

    ImportError where one cannot be imported, of which pdoc would only warn.
    """
    names = ["dsg_ros", *(module.name for module in pkgutil.walk_packages(dsg_ros.__path__, "dsg_ros."))]
    public = [name for name in names if "._" not in name]
    for name in public:
        importlib.import_module(name)
    return public


def write(folder: Path, *which: str) -> None:
    """The pages of ``which``, as pdoc is told them, in ``folder``, with an index and a search."""
    render.configure(docformat="markdown", show_source=False, footer_text=f"dsg_ros {dsg_ros.__version__}")
    with warnings.catch_warnings():
        # The constructor of a record is shown with its annotations as they are written.
        warnings.filterwarnings("ignore", "Error parsing type annotation")
        pdoc.pdoc(*which, output_directory=folder)


if __name__ == "__main__":
    (folder,) = map(Path, sys.argv[1:])
    linked, public = walk_specs(LINKED), modules()
    write(folder, *LINKED, *(name for name in public if name not in linked))
    print(f"{len(public)} modules: {folder / 'index.html'}")
