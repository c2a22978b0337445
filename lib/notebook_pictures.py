"""What the page of MbPA's experiments draws of pictures: the worked example of figure 5.

The pictures are drawn from the data where they are at hand. `python -m lib.notebook_pictures` keeps in
`data/traces/mbpa.figure5` what every reader sees: the classes' names, and the few pictures that the page draws of
Omniglot, which may be passed on.
"""

import base64
import html
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML, display

from lib import ledger
from lib.atomic import write_atomically
from lib.data.store import StandInWarning
from lib.experiments import mbpa_incremental_tables as tables
from lib.ledger import Record
from lib.notebook import new_plot
from lib.tasks.incremental import picture_set

SHOWN, COLUMNS = 20, 7  # neighbours that are drawn; the paper draws 20
KEPT = ("omniglot",)  # data sets whose pictures may be passed on


@dataclass(frozen=True)
class Pictures:
    """What is drawn of an example."""

    images: list[np.ndarray]
    """uint8, the query first, then its neighbours: (S, S) of grey ones, where ink is 255, or (S, S, 3). None where
    they are not at hand and only the names were kept."""
    names: dict[int, str]
    """Of the classes that the example speaks of."""


def show_example(*variants: str) -> None:
    """Of each data set that has one: the query, its nearest neighbours with their classes, and what the fit changes."""
    for variant in variants:
        record = shown_record(variant)
        if record is None:
            _say(f"{tables.DATA_SETS[variant]}: not run, or there is no such query")
            continue
        pictures = pictures_of(record) or kept_pictures(record)
        if pictures is None or not pictures.images:
            _say(f"{tables.DATA_SETS[variant]}: its pictures are not at hand to be drawn")
        else:
            _draw(record, pictures)
        _say(in_words(record, pictures))


def _say(text: str) -> None:
    """As `print`, but where it was said: a notebook gathers what is printed between two figures in one place."""
    display(HTML(f"<pre>{html.escape(text)}</pre>"))


def shown_record(variant: str) -> Record | None:
    """The first seed's that has an example."""
    records = tables.shown_records(tables.FIGURE5, variant)
    return next((record for record in records if record.metrics["example"]), None)


def pictures_of(record: Record) -> Pictures | None:
    """The pictures of a record's example, if its data is at hand."""
    config, example = record.config, record.metrics["example"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StandInWarning)
        found = picture_set(config["pictures"], config["size"], config["held_out"])
    if found.data["sha256"] != record.data["sha256"]:
        return None
    shown = [example["picture"], *example["neighbours"][:SHOWN]]
    images = [found.images[at].permute(1, 2, 0).cpu().numpy() for at in shown]
    names = {label: found.class_names[label] for label in example["classes"]}
    return Pictures([image if image.shape[2] == 3 else image[:, :, 0] for image in images], names)


def kept_path(record: Record) -> Path:
    """Where an example's pictures are kept, if they are."""
    name = f"{record.variant}-{record.profile}-{record.seed}.json"
    return ledger.ROOT / "data" / "traces" / tables.FIGURE5 / name


def keep(record: Record, pictures: Pictures) -> Path:
    """Keep an example's names, and its pictures where they may be passed on, beside the record."""
    images = pictures.images if record.variant in KEPT else []
    content = {
        "of": [record.metrics["example"]["picture"], record.data["sha256"]],
        "images": [[*image.shape, base64.b64encode(image.tobytes()).decode()] for image in images],
        "names": pictures.names,
    }
    path = kept_path(record)
    write_atomically(path, lambda file: file.write(json.dumps(content).encode() + b"\n"))
    return path


def kept_pictures(record: Record) -> Pictures | None:
    """What was kept of this very example."""
    path = kept_path(record)
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["of"] != [record.metrics["example"]["picture"], record.data["sha256"]]:
        return None  # of an earlier run
    images = [
        np.frombuffer(base64.b64decode(data), dtype=np.uint8).reshape(shape) for *shape, data in content["images"]
    ]
    return Pictures(images, {int(label): name for label, name in content["names"].items()})


def in_words(record: Record, pictures: Pictures | None) -> str:
    """What the models make of the query and of its neighbours."""
    example = record.metrics["example"]
    label, classes = example["label"], example["classes"]
    name = short(pictures.names[label]) if pictures else f"class {label}"
    lines = [f"{tables.DATA_SETS[record.variant]}, seed {record.seed}, after {example['epoch']:g} passes: «{name}»"]
    for model, text in tables.MODELS.items():
        p = example["probabilities"][model]
        best = max(range(len(classes)), key=p.__getitem__)
        other = short(pictures.names[classes[best]]) if pictures else f"class {classes[best]}"
        own = 100 * p[classes.index(label)]
        lines.append(f"    {text:15} {own:3.0f}% for it; most, {100 * p[best]:.0f}%, for «{other}»")
    before, after = example["neighbours_right_before"], example["neighbours_right_after"]
    lines.append(
        f"    its {len(example['labels'])} neighbours, of {len(set(example['labels']))} classes:\n"
        f"    {100 * before:.0f}% are named rightly before the fit, {100 * after:.0f}% after it"
    )
    return "\n".join(lines)


def _draw(record: Record, pictures: Pictures) -> None:
    example, rows = record.metrics["example"], -(-len(pictures.images) // COLUMNS)
    figure, panels = new_plot(9, 1.7 * rows, nrows=rows, ncols=COLUMNS)
    labels = [example["label"], *example["labels"]]
    for axes in panels.flat:
        axes.set_axis_off()
    for number, (axes, image) in enumerate(zip(panels.flat, pictures.images, strict=False)):
        axes.imshow(image if image.ndim == 3 else 255 - image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(("" if number else "the query: ") + short(pictures.names[labels[number]]), fontsize=7)
    plt.show()


def short(name: str, length: int = 18) -> str:
    """A class name's first words, or Omniglot's alphabet and number."""
    name = name.split(",")[0].replace("/character", " ")
    return name if len(name) <= length else name[: length - 1] + "…"


if __name__ == "__main__":
    for variant in tables.DATA_SETS:
        if (record := shown_record(variant)) and (pictures := pictures_of(record)):
            print(keep(record, pictures))
