"""Experiments on a memory: change one thing, run the episode again, see what the network answers.

`intervene` and `compare` are plain functions; `Laboratory` puts controls on them in a live notebook.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ipywidgets
import numpy as np
from torch import Tensor

from lib.inspector.trace import MEMORIES, Intervention, Trace, check_slot, record
from lib.inspector.viewer import WIDGET, Inspector, summary


@dataclass(frozen=True)
class EraseSlot(Intervention):
    """Set slot `slot` to zero once, just before the prediction of step `step`."""

    slot: int
    step: int

    def before(self, step: int, state: Any) -> Any:
        """The state with the slot erased, at its step."""
        return _with_rows(state, {self.slot: None}) if step == self.step else state

    def __str__(self) -> str:
        return f"slot {self.slot} is erased before t = {self.step}"


@dataclass(frozen=True)
class FreezeSlot(Intervention):
    """From step `step` on, put slot `slot` back to what it was before, at the end of each step."""

    slot: int
    step: int

    def after(self, step: int, earlier: Any, state: Any) -> Any:
        """The state with the slot as it was in `earlier`, from its step on."""
        return _with_rows(state, {self.slot: earlier}) if step >= self.step else state

    def __str__(self) -> str:
        return f"slot {self.slot} is frozen from t = {self.step} on"


@dataclass(frozen=True)
class SwapLabelRows(Intervention):
    """Exchange what slots `slot` and `other` of the label memory hold once, just before the prediction of step `step`.

    The features stay: what looks like the one is now found under the other's name.
    """

    slot: int
    other: int
    step: int

    def before(self, step: int, state: Any) -> Any:
        """The state with the two rows exchanged, at its step."""
        if step != self.step:
            return state
        memory = state.label_memory.clone()
        memory[:, [self.slot, self.other]] = memory[:, [self.other, self.slot]]
        return state._replace(label_memory=memory)

    def __str__(self) -> str:
        return f"the label rows of slots {self.slot} and {self.other} are swapped before t = {self.step}"


@dataclass(frozen=True)
class SwapLabels(Intervention):
    """From step `step` on, tell label `a` where `b` is right, and `b` where `a` is: the world has changed its mind."""

    a: int
    b: int
    step: int

    def tell(self, ys: Tensor) -> Tensor:
        """The labels (B, T) with a and b exchanged from the step on."""
        late = ys[:, self.step :]
        swapped = late.where(late != self.a, self.b).where(late != self.b, self.a)
        told = ys.clone()
        told[:, self.step :] = swapped
        return told

    def __str__(self) -> str:
        return f"labels {self.a} and {self.b} are swapped from t = {self.step} on"


def intervene(
    learner: Any, xs: Tensor, ys: Tensor, interventions: Sequence[Intervention], *, index: int = 0, **about: Any
) -> Trace:
    """Run episode `index` of xs (B, T, D) and ys (B, T) with interventions, and record it.

    The labels of the trace are those that the learner was told, so a right answer is one that agrees with them.
    `about`: title, note, image_size and label_delay, as for `record`. Interventions act in the order given.
    Raises ValueError for a slot, a step or a label that does not exist.
    """
    _check(learner, xs, ys, interventions)
    return record(learner, xs, ys, index=index, interventions=interventions, **about)


@dataclass(frozen=True)
class Comparison:
    """What a learner answers without and with an intervention."""

    changed: tuple[int, ...]
    """Steps whose answer is another one."""
    before: dict[int, float]
    """Accuracy by instance number, without."""
    after: dict[int, float]
    """Accuracy by instance number, with; against the labels that were told."""


def compare(before: Trace, after: Trace) -> Comparison:
    """Compare two traces of one episode. Raises ValueError if they are of different lengths."""
    if before.steps != after.steps:
        raise ValueError(f"these are different episodes: one has {before.steps} steps, the other {after.steps}")
    changed = np.flatnonzero(before.answers != after.answers)
    return Comparison(tuple(int(t) for t in changed), before.accuracy_by_instance(), after.accuracy_by_instance())


class Laboratory:
    """Controls to erase or freeze a slot and to swap labels or their rows, and what the learner then answers.

    The controls need a live notebook; the rendered book shows what the given `interventions` do. xs (B, T, D);
    ys (B, T); `about`: title, note, image_size and label_delay, as for `record`. Raises ValueError as `intervene` does.
    """

    def __init__(
        self,
        learner: Any,
        xs: Tensor,
        ys: Tensor,
        interventions: Sequence[Intervention] = (),
        *,
        index: int = 0,
        **about: Any,
    ):
        self._episode, self._about = (learner, xs, ys), {"index": index, **about}
        self.before = record(*self._episode, **self._about)
        self.inspector = Inspector(self.before)
        self._report, self._message = ipywidgets.HTML(), ipywidgets.HTML()
        self.run(interventions)
        self.inspector.step = min(self.comparison.changed, default=0)
        of_slots = EraseSlot | FreezeSlot | SwapLabelRows
        self.inspector.slot = next((i.slot for i in interventions if isinstance(i, of_slots)), None)
        self.widget = self._controls()

    def run(self, interventions: Sequence[Intervention]) -> Comparison:
        """Run the episode again from its start with these interventions and show what changed."""
        after = intervene(*self._episode, interventions, **self._about)
        self.after = replace(after, answers_before=self.before.answers)
        self.interventions = tuple(interventions)
        self.comparison = compare(self.before, self.after)
        self.inspector.show(self.after)
        self._report.value = self._comparison_html()
        return self.comparison

    def _controls(self) -> ipywidgets.Widget:
        classes = self.before.probabilities.shape[1]

        def number(name: str, largest: int, value: int = 0) -> ipywidgets.BoundedIntText:
            layout = ipywidgets.Layout(width="150px")
            return ipywidgets.BoundedIntText(value, min=0, max=largest, description=name, layout=layout)

        def button(text: str, action: Any) -> ipywidgets.Button:
            made = ipywidgets.Button(description=text, layout=ipywidgets.Layout(width="auto"))
            made.on_click(lambda _: self._try(action()))
            return made

        step, slot = number("from step", self.before.steps - 1), number("slot", max(self.before.slots - 1, 0))
        a, b = number("label", classes - 1), number("and label", classes - 1, min(1, classes - 1))
        self.inspector.observe(lambda change: setattr(step, "value", change["new"]), "step")
        self.inspector.observe(lambda change: change["new"] is None or setattr(slot, "value", change["new"]), "slot")
        erase = button("Erase slot", lambda: [*self.interventions, EraseSlot(slot.value, step.value)])
        freeze = button("Freeze slot", lambda: [*self.interventions, FreezeSlot(slot.value, step.value)])
        swap = button("Swap labels", lambda: [*self.interventions, SwapLabels(a.value, b.value, step.value)])
        undo = button("Undo the last", lambda: self.interventions[:-1])
        lines = [[step, slot, erase, freeze], [a, b, swap, undo]]
        if self.before.label_memory is not None:
            other = number("and slot", self.before.slots - 1, min(1, self.before.slots - 1))
            exchange = lambda: [*self.interventions, SwapLabelRows(slot.value, other.value, step.value)]  # noqa: E731
            lines.insert(1, [other, button("Swap their label rows", exchange)])
        wrap = ipywidgets.Layout(flex_flow="row wrap")
        rows = [ipywidgets.HBox(line, layout=wrap) for line in lines]
        return ipywidgets.VBox([*rows, self._message, self._report, self.inspector])

    def _try(self, interventions: Sequence[Intervention]) -> None:
        try:
            self.run(interventions)
            self._message.value = ""
        except ValueError as error:
            self._message.value = f"<p role='alert'>{html.escape(str(error))}</p>"

    def _comparison_html(self) -> str:
        before, after, result = self.before, self.after, self.comparison
        done = "; ".join(map(str, self.interventions)) or "nothing is changed"
        rows = "".join(
            f"<tr><th scope='row'>{n}</th><td>{result.before[n]:.0%}</td><td>{result.after[n]:.0%}</td></tr>"
            for n in result.before
        )
        answers = "".join(
            f"<tr><th scope='row'>{t}</th><td>{before.answers[t]}</td><td>{after.answers[t]}</td>"
            f"<td>{after.labels[t]}</td><td>{'yes' if after.right[t] else 'no'}</td></tr>"
            for t in result.changed
        )
        return (
            f"<p><b>{html.escape(done[0].upper() + done[1:])}.</b> Right answers: {before.right.sum()} of "
            f"{before.steps} without, {after.right.sum()} with; {len(result.changed)} answers differ (marked ≠).</p>"
            "<div style='display: flex; flex-wrap: wrap; gap: 0 3em; align-items: start; margin-bottom: 1em'>"
            f"{_table('Right answers', ('instance', 'without', 'with'), rows)}"
            f"{_table('Answers that differ', ('step', 'without', 'with', 'label told', 'right with it'), answers)}"
            "</div>"
        )

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Controls in a live notebook; elsewhere the result of the given interventions, with the inspector."""
        data, metadata = self.inspector._repr_mimebundle_()
        data[WIDGET] = data[WIDGET] | {"model_id": self.widget.model_id}
        data["text/html"] = (
            "<p>The controls of this laboratory need a live notebook. This is what one experiment shows:</p>"
            f"{self._comparison_html()}{data['text/html']}"
        )
        changed = ", ".join(map(str, self.comparison.changed)) or "none"
        data["text/plain"] = f"Laboratory: answers that changed, by step: {changed}. {summary(self.after)}"
        return data, metadata


def _table(caption: str, columns: tuple[str, ...], rows: str) -> str:
    if not rows:
        return ""
    head = "".join(f"<th scope='col'>{each}</th>" for each in columns)
    return (
        f"<table style='width: auto'><caption>{caption}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _with_rows(state: Any, rows: dict[int, Any]) -> Any:
    """The state with the rows of some slots, in each of its memories, as another state has them, or zero for None."""
    changed = {}
    for name in MEMORIES:
        if (memory := getattr(state, name, None)) is not None:
            changed[name] = memory.clone()
            for slot, other in rows.items():
                changed[name][:, slot] = 0.0 if other is None else getattr(other, name)[:, slot]
    return state._replace(**changed)


def _check(learner: Any, xs: Tensor, ys: Tensor, interventions: Sequence[Intervention]) -> None:
    learner.begin(1)
    memories = [memory for name in MEMORIES if (memory := getattr(learner.state, name, None)) is not None]
    slots, steps = memories[0].shape[1] if memories else 0, ys.shape[1]
    classes = learner.predict(xs[:1, 0]).shape[-1]
    for intervention in interventions:
        if not 0 <= intervention.step < steps:
            raise ValueError(f"there is no step {intervention.step}: the episode has {steps} steps, 0 to {steps - 1}")
        if isinstance(intervention, SwapLabels):
            for label in (intervention.a, intervention.b):
                if not 0 <= label < classes:
                    raise ValueError(f"there is no label {label}: the learner has labels 0 to {classes - 1}")
        else:
            check_slot(intervention.slot, slots)
        if isinstance(intervention, SwapLabelRows):
            check_slot(intervention.other, slots)
            if not hasattr(learner.state, "label_memory"):
                raise ValueError("this learner keeps no labels in slots of their own, so there are no rows to swap")
