"""Make an executed notebook fit for a page that has no kernel behind it."""

import html
import re
from collections.abc import Iterator

import nbformat

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
PARAMETER = re.compile(r"\b(profile|seed|device)\b")
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


def freeze(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return the notebook with its run's traces removed, parameters shown once, and each widget as it stood at the end.

    - Of the two parameter cells, the committed one and the injected one, the page shows the injected one: what was run.
      It shows neither if no other cell names a parameter.
    - A widget that brings its own `text/html` (the inspector) is left alone. Another one becomes a note that names its
      controls, followed by what its output areas held.
    - The widgets' state and papermill's metadata (times, paths of the machine) go.
    """
    hidden = {"parameters"} if uses_parameters(notebook) else {"parameters", "injected-parameters"}
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        tags = cell.metadata.get("tags", [])
        if hidden & set(tags) and "remove-cell" not in tags:
            cell.metadata["tags"] = [*tags, "remove-cell"]
    state = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [frozen for output in cell.outputs for frozen in frozen_outputs(output, state)]
    notebook.metadata.pop("widgets", None)
    notebook.metadata.pop("papermill", None)
    return notebook


def uses_parameters(notebook: nbformat.NotebookNode) -> bool:
    """Whether a code cell other than the two parameter cells names a parameter."""
    return any(
        PARAMETER.search(cell.source)
        for cell in notebook.cells
        if cell.cell_type == "code" and not {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", []))
    )


def frozen_outputs(output: nbformat.NotebookNode, state: dict) -> Iterator[nbformat.NotebookNode]:
    """The outputs that stand for `output` on the page: itself, unless it is a widget without `text/html`."""
    data = output.get("data", {})
    if WIDGET_VIEW not in data or "text/html" in data:
        yield output
        return
    models = list(descendants(data[WIDGET_VIEW]["model_id"], state))
    controls = [
        f"{model['description']} = {model['value']}"
        for model in models
        if model.get("description") and model.get("value") is not None
    ]
    shown = f" Shown at {html.escape(', '.join(controls))}." if controls else ""
    note = f'<p class="live-only">This control works in a running notebook.{shown}</p>'
    yield nbformat.v4.new_output("display_data", data={"text/html": note, "text/plain": "a control"})
    for model in models:
        for inner in model.get("outputs", []):
            yield from frozen_outputs(nbformat.from_dict(inner), state)


def descendants(model_id: str, state: dict) -> Iterator[dict]:
    """The states of a widget and of all widgets in it, in the order in which they are laid out."""
    model = state.get(model_id, {}).get("state", {})
    yield model
    for child in model.get("children", []):
        yield from descendants(child.removeprefix("IPY_MODEL_"), state)
