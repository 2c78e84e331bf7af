"""Runs the lesson's script as a notebook and writes it, with its outputs.

    KERAS_BACKEND=jax python docs/notebook/build.py

`lesson.py` is the source, in the percent format: never edit `lesson.ipynb`. Needs
`pip install -e ".[jax,docs,demo]"`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("lesson.py")
NOTEBOOK = SOURCE.with_suffix(".ipynb")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def unrun() -> Any:
    """The notebook of the script, without outputs."""
    import jupytext

    notebook = jupytext.reads(SOURCE.read_text("utf-8"), "py:percent")
    notebook.metadata = {"kernelspec": KERNEL}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # else a new one at each run
    return notebook


def run() -> Any:
    """The notebook with its outputs. An error in a cell is raised."""
    from nbclient import NotebookClient

    notebook = unrun()
    # One output for all that a cell prints, however the prints arrive.
    options = {"kernel_name": "python3", "coalesce_streams": True}
    NotebookClient(notebook, timeout=600, **options).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the times
        if "outputs" in cell:
            cell.outputs = [o for o in cell.outputs if not _start_up_note(o)]
    return notebook


def _start_up_note(output: Mapping[str, Any]) -> bool:
    """Keras imports TensorFlow where it is installed, whose C++ part then says so."""
    return "absl::InitializeLog" in output.get("text", "")


def shape(notebook: Any) -> list[Any]:
    """What two runs have in common: all except pictures, and numbers in outputs."""
    return [
        (cell["cell_type"], cell["source"], list(_outputs(cell)))
        for cell in notebook["cells"]
    ]


def _outputs(cell: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        text = output.get("text", "") or data.get("text/plain", "")
        yield output["output_type"], *sorted(data), re.sub(r"-?\d[\d.,e+-]*", "#", text)


def main() -> None:
    """Run, write, and say how large the file is."""
    import nbformat

    from keras_penalties.files import replacing

    notebook = run()
    with replacing(NOTEBOOK) as new:
        nbformat.write(notebook, new)
    print(f"{NOTEBOOK}: {NOTEBOOK.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
