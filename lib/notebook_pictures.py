"""What the page of MbPA's experiments draws of pictures: the worked example of figure 5."""

import warnings

import matplotlib.pyplot as plt

from lib.data.store import StandInWarning
from lib.experiments import mbpa_incremental_tables as tables
from lib.ledger import Record
from lib.notebook import new_plot
from lib.tasks.incremental import PictureSet, picture_set

SHOWN, COLUMNS = 20, 7  # neighbours that are drawn; the paper draws 20


def show_example(*variants: str) -> None:
    """Of each data set that has one: the query, its nearest neighbours with their classes, and what the fit changes."""
    for variant in variants:
        records = tables.shown_records(tables.FIGURE5, variant)
        record = next((record for record in records if record.metrics["example"]), None)
        if record is None:
            print(f"{tables.DATA_SETS[variant]}: not run, or there is no such query")
            continue
        pictures = pictures_of(record)
        if pictures is None:
            print(f"{tables.DATA_SETS[variant]}: its pictures are not at hand to be drawn")
        else:
            _draw(record, pictures)
        print(in_words(record, pictures))


def pictures_of(record: Record) -> PictureSet | None:
    """The pictures that a record's numbers are about, if they are at hand."""
    config = record.config
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StandInWarning)
        pictures = picture_set(config["pictures"], config["size"], config["held_out"])
    return pictures if pictures.data["sha256"] == record.data["sha256"] else None


def in_words(record: Record, pictures: PictureSet | None) -> str:
    """What the models make of the query and of its neighbours."""
    example = record.metrics["example"]
    label, classes = example["label"], example["classes"]
    name = short(pictures.class_names[label]) if pictures else f"class {label}"
    lines = [f"{tables.DATA_SETS[record.variant]}, seed {record.seed}, after {example['epoch']:g} passes: «{name}»"]
    for model, text in tables.MODELS.items():
        p = example["probabilities"][model]
        best = max(range(len(classes)), key=p.__getitem__)
        other = short(pictures.class_names[classes[best]]) if pictures else f"class {classes[best]}"
        own = 100 * p[classes.index(label)]
        lines.append(f"    {text:15} {own:3.0f}% for it; most, {100 * p[best]:.0f}%, for «{other}»")
    before, after = example["neighbours_right_before"], example["neighbours_right_after"]
    lines.append(
        f"    its {len(example['labels'])} neighbours, of {len(set(example['labels']))} classes, are named rightly: "
        f"{100 * before:.0f}% before the fit, {100 * after:.0f}% after it"
    )
    return "\n".join(lines)


def _draw(record: Record, pictures: PictureSet) -> None:
    example, rows = record.metrics["example"], -(-(SHOWN + 1) // COLUMNS)
    figure, panels = new_plot(9, 1.7 * rows, nrows=rows, ncols=COLUMNS)
    shown = [(example["picture"], "the query: ", example["label"])]
    shown += [(at, "", label) for at, label in zip(example["neighbours"], example["labels"], strict=True)][:SHOWN]
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, (at, what, label) in zip(panels.flat, shown, strict=False):
        image = pictures.images[at].permute(1, 2, 0).cpu().numpy()
        axes.imshow(image if image.shape[2] == 3 else 255 - image[:, :, 0], cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"{what}{short(pictures.class_names[label])}", fontsize=7)
    plt.show()


def short(name: str, length: int = 18) -> str:
    """A class name's first words, or Omniglot's alphabet and number."""
    name = name.split(",")[0].replace("/character", " ")
    return name if len(name) <= length else name[: length - 1] + "…"
