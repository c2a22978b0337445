// Content addressing by hand: slots and a key in the plane, and what is read (lib/memory/addressing.py, lib/memory/lrua.py).
// `mount` puts it on a page; the default export does the same in a live notebook (anywidget). Slots count from 0.

import { clamp, darkTheme, draggable, fixed, keepDrawn, mountEach, node, shape, slider, sum } from "./page.js";

export const EPSILON = 1e-8; // as in lib/memory/addressing.py: an empty slot has similarity 0
const HALF = 165, TIP = 140; // half of the drawing's side, and the reach of its plane, in pixels of the drawing

const norm = ([x, y]) => Math.hypot(x, y);
const degrees = ([x, y]) => (Math.atan2(y, x) * 180) / Math.PI;
const polar = (angle, length) => [length * Math.cos((angle * Math.PI) / 180), length * Math.sin((angle * Math.PI) / 180)];
const pair = (vector) => `(${vector.map((value) => fixed(value, 2)).join(", ")})`;

// ---- The memory ---------------------------------------------------------------------------------------------------

/** Cosine similarity, softmax weights and the read vector of a key: equations 2 to 4, with β before the softmax. */
export function lookUp(memory, key, sharpness) {
  const size = (vector) => Math.sqrt(sum(vector.map((value) => value * value)) + EPSILON);
  const similarity = memory.map((slot) => sum(slot.map((value, j) => value * key[j])) / (size(slot) * size(key)));
  const highest = Math.max(...similarity);
  const exponentials = similarity.map((value) => Math.exp(sharpness * (value - highest)));
  const total = sum(exponentials);
  const weights = exponentials.map((value) => value / total);
  const read = key.map((_, j) => sum(memory.map((slot, i) => weights[i] * slot[j])));
  return { similarity, weights, read };
}

/** The least used slot, the lowest index where slots tie (equation 6). */
export const leastUsed = (usage) => usage.indexOf(Math.min(...usage));

/** One step of least recently used access with one head and gate 0: erase, write, read, update usage (equations 5 to 8). */
export function writeKey({ memory, usage, key, sharpness, decay }) {
  const slot = leastUsed(usage);
  const written = memory.map((row, i) => (i === slot ? [...key] : [...row]));
  const { weights } = lookUp(written, key, sharpness);
  return { slot, memory: written, usage: usage.map((value, i) => decay * value + weights[i] + (i === slot ? 1 : 0)) };
}

/** What is read with the present key, in words. */
export function describe({ memory, key, sharpness }) {
  const { similarity, weights, read } = lookUp(memory, key, sharpness);
  if (similarity.every((value) => value === 0)) {
    return `The key is like no slot: all ${memory.length} are read alike, weight ${fixed(weights[0], 3)} each.`;
  }
  const best = similarity.indexOf(Math.max(...similarity));
  return `Slot ${best} is most like the key: cosine ${fixed(similarity[best], 3)}, weight ${fixed(weights[best], 3)}. ` +
    `The read vector is ${pair(read)}.`;
}

// ---- The page -----------------------------------------------------------------------------------------------------

let mounted = 0; // makes ids unique on a page

/** Show `start`, { memory, usage, key, sharpness, decay }, in `el`. `onChange` gets the state. Returns { show, destroy }. */
export function mount(el, start, { onChange = () => {} } = {}) {
  let state = { ...start, turn: degrees(start.key), event: "" }; // turn: the angle, also of a key of length 0
  const id = `ca-${(mounted += 1)}`;

  const control = (name, label, attributes, change) => slider(`${id}-${name}`, "ca", label, attributes, change);
  const turn = control("turn", "Turn the key", { min: -180, max: 180, step: 1 }, (angle) => point(angle, norm(state.key)));
  const stretch = control("stretch", "Stretch the key", { min: 0, max: 2, step: 0.05 }, (length) => point(state.turn, length));
  const sharpen = control("sharpness", "Sharpness β", { min: 0, max: 20, step: 0.5 }, (sharpness) => change({ sharpness }));
  const write = node("button", { type: "button", onclick: () => {
    const { slot, memory, usage } = writeKey(state);
    change({ memory, usage }, `The key was written into slot ${slot}. `);
  } });
  const restart = () => change({ ...start, turn: degrees(start.key) }, "All is as at the start. ");
  const reset = node("button", { type: "button", onclick: restart }, "Reset");

  const rings = shape("g", { class: "ca-rings" }), arrows = shape("g"), marks = shape("g");
  const keyLine = shape("line", { class: "ca-key-line", x1: 0, y1: 0 });
  const handle = shape("g", { class: "ca-handle", tabindex: 0, role: "slider", "aria-label": "Key: left and right turn it, up and down stretch it",
    "aria-valuemin": -180, "aria-valuemax": 180 },
  shape("circle", { class: "ca-grip", r: 24 }), shape("rect", { class: "ca-ring", x: -14, y: -14, width: 28, height: 28, rx: 8 }),
  shape("rect", { class: "ca-key", x: -10, y: -10, width: 20, height: 20, rx: 5 }), shape("text", { class: "ca-on" }, "k"));
  const plane = shape("svg", { class: "ca-plane", viewBox: `${-HALF} ${-HALF} ${2 * HALF} ${2 * HALF}` }, rings, arrows, keyLine, marks, handle);

  const rows = node("tbody"), story = node("p", { class: "ca-story", "aria-live": "polite" });
  const heading = (...text) => node("th", { scope: "col" }, ...text);
  const table = node("table", {}, node("caption", {}, "Each slot, and how much of it is read"), node("thead", {}, node("tr", {},
    heading("slot"), heading("vector"), heading("cosine K"), heading("weight"), heading("usage"))), rows);
  const root = node("div", { class: "ca tex2jax_ignore mathjax_ignore", role: "group", "aria-label": "Content addressing by hand",
    tabindex: -1, "data-lm-suppress-shortcuts": "true" },
  node("div", { class: "ca-controls" }, turn.row, stretch.row, sharpen.row),
  node("div", { class: "ca-board" }, node("figure", {}, plane, node("figcaption", {},
    node("span", { class: "ca-is-slot" }, "● slots, as thick as they are read"), node("span", { class: "ca-is-key" }, "■ k, the key: drag it"),
    node("span", { class: "ca-is-read" }, "◇ r, what is read"))),
  node("div", { class: "ca-side" }, table, story, node("div", { class: "ca-buttons" }, write, reset))));

  // ---- Drawing --------------------------------------------------------------------------------------------------
  const reach = () => Math.max(2, norm(start.key), ...state.memory.map(norm));
  const place = ([x, y]) => [(x * TIP) / reach(), (-y * TIP) / reach()];
  const at = ([x, y]) => ({ transform: `translate(${x.toFixed(2)} ${y.toFixed(2)})` });
  const line = (name, [x, y], width) => shape("line", { class: name, x1: 0, y1: 0, x2: x.toFixed(2), y2: y.toFixed(2), "stroke-width": width });

  function drawPlane({ weights, read }) {
    const unit = TIP / reach();
    rings.replaceChildren(shape("path", { d: `M${-HALF} 0H${HALF}M0 ${-HALF}V${HALF}` }),
      ...[...Array(Math.floor(reach())).keys()].flatMap((n) => [shape("circle", { r: (n + 1) * unit }),
        shape("text", { x: (n + 1) * unit + 3, y: 12 }, String(n + 1))]));
    const tips = state.memory.map(place), reading = place(read);
    arrows.replaceChildren(...tips.map((tip, i) => line("ca-slot-line", tip, (1 + 14 * weights[i]).toFixed(2))), line("ca-read-line", reading, 2));
    marks.replaceChildren(...tips.map(([x, y], i) => {
      const hidden = tips.slice(0, i).filter(([u, v]) => Math.hypot(x - u, y - v) < 12).length; // beside each other, not on top
      return shape("g", at([x - 17 * hidden, y]), shape("circle", { class: "ca-slot", r: 9 }), shape("text", { class: "ca-on" }, String(i)));
    }), shape("g", at(reading), shape("path", { class: "ca-read", d: "M0-15L15 0 0 15-15 0z" }), shape("text", { class: "ca-r", x: 11, y: -9 }, "r")));
    const [x, y] = place(state.key), text = `angle ${fixed(state.turn, 0)}°, length ${fixed(norm(state.key), 2)}`;
    keyLine.setAttribute("x2", x);
    keyLine.setAttribute("y2", y);
    handle.setAttribute("transform", at([x, y]).transform);
    handle.setAttribute("aria-valuenow", Math.round(state.turn));
    handle.setAttribute("aria-valuetext", text);
  }

  function drawRows({ similarity, weights }) {
    const least = leastUsed(state.usage), best = similarity.findIndex((value) => value && value === Math.max(...similarity));
    const cell = (...content) => node("td", {}, ...content);
    rows.replaceChildren(...state.memory.map((slot, i) => {
      const bar = node("span", { class: "ca-bar", "aria-hidden": "true" }, node("span"));
      bar.firstChild.style.width = `${100 * weights[i]}%`;
      return node("tr", i === best ? { class: "ca-best" } : {}, node("th", { scope: "row" }, String(i)), cell(pair(slot)),
        cell(fixed(similarity[i], 3)), cell(node("div", { class: "ca-weight" }, bar, fixed(weights[i], 3))),
        cell(...(i === least ? [node("span", { class: "ca-least" }, "least ")] : []), fixed(state.usage[i], 2)));
    }));
  }

  function draw() {
    const found = lookUp(state.memory, state.key, state.sharpness), length = norm(state.key);
    drawPlane(found);
    drawRows(found);
    stretch.input.max = fixed(reach(), 2);
    for (const [{ input, value }, number, text] of [[turn, Math.round(state.turn), `${fixed(state.turn, 0)}°`],
      [stretch, length, fixed(length, 2)], [sharpen, state.sharpness, `${fixed(state.sharpness, 1)}${state.sharpness === 1 ? " (MANN)" : ""}`]]) {
      if (Number(input.value) !== number) input.value = number;
      input.setAttribute("aria-valuetext", text);
      value.textContent = text;
    }
    write.textContent = `Write k into slot ${leastUsed(state.usage)}`;
    const words = state.event + describe(state);
    if (story.textContent !== words) story.textContent = words;
  }

  function change(part, event = "") {
    state = { ...state, ...part, event };
    draw();
    onChange({ memory: state.memory, usage: state.usage, key: state.key, sharpness: state.sharpness });
  }

  /** Turn the key to an angle in degrees and stretch it to a length, in whole degrees and twentieths. */
  function point(angle, length) {
    const turned = ((Math.round(angle) + 540) % 360) - 180 || 0;
    const whole = turned === -180 && angle > 0 ? 180 : turned;
    change({ turn: whole, key: polar(whole, Math.round(20 * clamp(length, 0, reach())) / 20) });
  }

  // ---- Pointer and keys -----------------------------------------------------------------------------------------
  const drag = (event) => {
    const box = plane.getBoundingClientRect(), scale = (2 * HALF * reach()) / (TIP * box.width);
    const vector = [(event.clientX - box.left - box.width / 2) * scale, (box.top + box.height / 2 - event.clientY) * scale];
    point(norm(vector) ? degrees(vector) : state.turn, norm(vector));
  };
  const keyed = ({ key, shiftKey: fine }) => {
    const [angle, length] = [state.turn, norm(state.key)];
    return {
      ArrowLeft: () => point(angle + (fine ? 1 : 5), length), ArrowRight: () => point(angle - (fine ? 1 : 5), length),
      ArrowUp: () => point(angle, length + (fine ? 0.05 : 0.2)), ArrowDown: () => point(angle, length - (fine ? 0.05 : 0.2)),
    }[key];
  };
  draggable(plane, handle, { drag, keyed, story, draw });

  // ---- Light and dark -------------------------------------------------------------------------------------------
  const retheme = () => { root.dataset.theme = darkTheme() ? "dark" : "light"; };
  const destroy = keepDrawn(el, root, retheme);
  draw();
  return {
    show(part) {
      if (part.memory.length !== part.usage.length) return; // the other half of a change is on its way
      state = { ...state, ...part, event: "" };
      if (norm(state.key)) state.turn = degrees(state.key);
      draw();
    },
    destroy,
  };
}

/** Mount every widget of a static page that is not mounted yet. */
export const mountAll = () => mountEach("ca", mount);

const TRAITS = ["memory", "usage", "key", "sharpness", "decay"];

function render({ model, el }) {
  let leading = false; // the change comes from here: nothing to follow
  const now = () => Object.fromEntries(TRAITS.map((name) => [name, model.get(name)]));
  const onChange = (state) => {
    leading = true;
    for (const [name, value] of Object.entries(state)) model.set(name, value);
    leading = false;
    model.save_changes();
  };
  const widget = mount(el, now(), { onChange });
  const follow = () => { if (!leading) widget.show(now()); };
  for (const name of TRAITS) model.on(`change:${name}`, follow);
  return () => {
    for (const name of TRAITS) model.off(`change:${name}`, follow);
    widget.destroy();
  };
}

export default { render };
