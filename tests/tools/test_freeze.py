"""An executed notebook on a page without a kernel: parameters once, widgets as they stood, nothing of the machine."""

import nbformat
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tools.freeze import WIDGET_STATE, WIDGET_VIEW, freeze


def view(model: str, **data) -> nbformat.NotebookNode:
    return new_output("display_data", data={WIDGET_VIEW: {"model_id": model}, "text/plain": "Widget()", **data})


def frozen(output) -> list:
    """The outputs that stand for one output; the widgets are a box with a slider and an area that holds a picture."""
    picture = {"output_type": "display_data", "data": {"image/png": "AAAA"}, "metadata": {}}
    state = {
        "box": {"state": {"children": ["IPY_MODEL_slider", "IPY_MODEL_area"]}},
        "slider": {"state": {"description": "β <", "value": 5}},
        "area": {"state": {"outputs": [picture]}},
    }
    notebook = new_notebook(
        cells=[new_code_cell("x", outputs=[output])], metadata={"widgets": {WIDGET_STATE: {"state": state}}}
    )
    done = freeze(notebook)
    assert "widgets" not in done.metadata
    return done.cells[0].outputs


def test_plain_outputs_stay():
    output = new_output("stream", text="1\n")
    assert frozen(output) == [output]


def test_widget_with_html_of_its_own_stays():
    output = view("box", **{"text/html": "<canvas></canvas>"})
    assert frozen(output) == [output]


def test_other_widget_becomes_a_note_and_what_it_showed():
    note, picture = frozen(view("box"))
    assert WIDGET_VIEW not in note.data
    assert "running notebook" in note.data["text/html"] and "β &lt; = 5" in note.data["text/html"]
    assert picture.data["image/png"] == "AAAA"


def test_widget_without_state():
    (note,) = frozen(view("unknown"))
    assert "running notebook" in note.data["text/html"] and "Shown at" not in note.data["text/html"]


def parameter_tags(source: str) -> list[list[str]]:
    cells = [
        new_code_cell("seed = 0", metadata={"tags": ["parameters"], "papermill": {"status": "completed"}}),
        new_code_cell("seed = 7", metadata={"tags": ["injected-parameters"]}),
        new_code_cell(source),
    ]
    done = freeze(new_notebook(cells=cells, metadata={"papermill": {"input_path": "/home/reader/chapter.ipynb"}}))
    assert "papermill" not in done.metadata and "papermill" not in done.cells[0].metadata
    return [cell.metadata.get("tags", []) for cell in done.cells[:2]]


def test_parameters_are_shown_once_where_they_are_used():
    assert parameter_tags("torch.manual_seed(seed)") == [["parameters", "remove-cell"], ["injected-parameters"]]
    assert parameter_tags("print(seedling)") == [["parameters", "remove-cell"], ["injected-parameters", "remove-cell"]]
