// The memory inspector: shows a trace (lib/inspector/trace.py), what a network did to its memory over one episode.
// `mount` puts it on a page; the default export does the same in a live notebook (anywidget). Steps, slots and labels
// count from 0, as in the trace.

import {
  clamp, darkTheme, keepDrawn, mountEach, node, player, range, renderer, span, sum, unpackArrays,
} from "./page.js";

const CLASS_COLOURS =
  ["#cc6677", "#ddcc77", "#44aa99", "#882255", "#88ccee", "#999933", "#aa4499", "#117733", "#332288", "#bbbbbb"];
const PAGE = `
  <p class="mi-title"></p>
  <p class="mi-note"></p>
  <div class="mi-controls">
    <input type="range" class="mi-slider" min="0" step="1" aria-label="Step">
    <span class="mi-clock"></span>
  </div>
  <div class="mi-strip" role="group" aria-label="The images of the episode"></div>
  <p class="mi-story" aria-live="polite"></p>
  <div class="mi-cards mi-now"></div>
  <div class="mi-memory">
    <div class="mi-board">
      <div>
        <p class="mi-label"></p>
        <canvas class="mi-grid" tabindex="0" role="application"
          aria-label="Memory, weights and usage. Arrow keys move to a cell and read its value, Enter picks its slot."></canvas>
      </div>
      <div>
        <p class="mi-label">The whole episode: slot by step</p>
        <canvas class="mi-episode" role="img"
          aria-label="Which slot was written and read at which step. By keyboard, the slider and the memory tell it."></canvas>
      </div>
    </div>
    <output class="mi-reading">Point at a cell, or use the arrow keys in the memory, to read its exact value.</output>
    <label class="mi-choice"><input type="checkbox"> Colour how each slot differs from the mean slot</label>
    <div class="mi-legend"></div>
    <div class="mi-cards mi-slot"></div>
  </div>`;

const largest = (values) => values.reduce((a, b) => Math.max(a, b), 0) || 1;
const quantile = (values, part) => Float64Array.from(values).sort()[Math.floor(part * values.length)];
const number = (value, digits = 4) => String(Number(value.toPrecision(digits))).replace("-", "−");
const percent = (value) => `${(100 * value).toFixed(1)} %`;
const ordinal = (n) => n + (n % 100 > 10 && n % 100 < 14 ? "th" : ["th", "st", "nd", "rd"][n % 10] ?? "th");
const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.trim().slice(i, i + 2), 16));
const css = (channels) => `rgb(${channels.join(" ")})`;
const mix = (from, to, part) => from.map((channel, i) => Math.round(channel + (to[i] - channel) * clamp(part, 0, 1)));
const classColour = (label) => CLASS_COLOURS[label % CLASS_COLOURS.length];

/** The arrays of a trace as numbers, and what follows from them: who is right, and what each slot lived through. */
function unpack(payload) {
  const { arrays, shapes } = unpackArrays(payload);
  const [T, C] = shapes.probabilities, S = shapes.images[1], [, N, M] = shapes.memory ?? [T, 0, 0];
  const L = shapes.label_memory?.[2] ?? 0; // columns of a memory for labels, beside one for features
  const R = shapes.read_weights?.[1] ?? 0, W = shapes.write_weights?.[1] ?? 0;

  const weight = (name, heads) => (t, slot, head) => arrays[name][(t * heads + head) * N + slot];
  const read = weight("read_weights", R), write = weight("write_weights", W);
  const overHeads = (one, heads) =>
    range(T).map((t) => range(N).map((slot) => sum(range(heads).map((head) => one(t, slot, head)))));
  const readMass = overHeads(read, R), writeMass = overHeads(write, W);
  const share = (t, slot) => (R ? (readMass[t][slot] * N) / R : 0); // 1 if all slots are read alike
  const writer = []; // for each step and slot: the last step that wrote into it, or -1
  writeMass.forEach((masses, t) => {
    const enough = Math.max((payload.written * sum(masses)) / N, 1e-9);
    writer.push(masses.map((mass, slot) => (mass >= enough ? t : t ? writer[t - 1][slot] : -1)));
  });
  const older = (t, slot) => writer[t][slot] >= 0 && writer[t][slot] < t;
  const shares = range(T).flatMap((t) => range(N).filter((slot) => older(t, slot)).map((slot) => share(t, slot)));
  const probability = (t, label) => arrays.probabilities[t * C + label];
  const answers = range(T).map((t) => range(C).reduce((best, c) => (probability(t, c) > probability(t, best) ? c : best), 0));

  const memory = (name, columns) => { // its cells as they are, and what they have beyond the mean slot
    const cell = (t, slot, column) => arrays[name][(t * N + slot) * columns + column];
    const mean = range(T).map((t) => range(columns).map((j) => sum(range(N).map((slot) => cell(t, slot, j))) / N));
    const view = (value) => { // with the size that nearly all of its cells keep below
      const sizes = range(N * T * columns).map((k) =>
        Math.abs(value(Math.floor(k / (N * columns)), Math.floor(k / columns) % N, k % columns)));
      return { value, scale: quantile(sizes, 0.99) || 1 };
    };
    return { cell, columns, views: [view(cell), view((t, slot, column) => cell(t, slot, column) - mean[t][column])] };
  };
  const memories = [
    N && { name: L ? "features" : "memory", ...memory("memory", M) }, L && { name: "labels", ...memory("label_memory", L) },
  ].filter(Boolean);
  return {
    ...payload, ...arrays, T, C, S, N, M, R, W, read, write, readMass, writeMass, share, writer, older, probability, answers,
    memories, L,
    used: (t, slot) => arrays.usage[t * N + slot],
    least: (t, slot) => arrays.least_used[t * N + slot],
    right: (t) => answers[t] === arrays.labels[t],
    wrote: (t, slot) => writer[t][slot] === t,
    shareScale: Math.max(quantile(shares, 0.995) || 0, 1.01),
    shareFloor: Math.min(quantile(shares, 0.005) || 0, 0.99),
    writeScale: largest(writeMass.flat()),
    /** The writes before step t, those first whose slots it reads most: { from: their step, slots, share: the mean over the slots }. */
    readsOf(t) {
      const images = new Map(); // what a step has just written is of this step: left out
      for (const slot of range(R ? N : 0).filter((i) => older(t, i)).sort((a, b) => readMass[t][b] - readMass[t][a])) {
        images.set(writer[t][slot], [...(images.get(writer[t][slot]) ?? []), slot]);
      }
      const read = [...images].map(([from, slots]) => ({ from, slots, share: sum(slots.map((i) => share(t, i))) / slots.length }));
      return read.sort((a, b) => b.share - a.share);
    },
    /** The more read half of them, from the most read on, and the other half, from the least read on: none is in both. */
    mostRead(t, count) { const reads = this.readsOf(t); return reads.slice(0, Math.min(count, Math.ceil(reads.length / 2))); },
    leastRead(t, count) { const reads = this.readsOf(t); return reads.slice(Math.ceil(reads.length / 2)).slice(-count).reverse(); },
    mostWritten: (t) => range(N).filter((slot) => writer[t][slot] === t).sort((a, b) => writeMass[t][b] - writeMass[t][a]),
  };
}

/** Size a canvas in CSS pixels, sharp on any screen; returns its context, cleared. */
function prepare(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.imageSmoothingEnabled = false;
  context.font = `11px ${getComputedStyle(canvas).fontFamily}`;
  return context;
}

/** A grid of coloured cells; `colour(row, column)` gives [red, green, blue]. */
function heatMap(context, rows, columns, colour, x, y, width, height) {
  const cells = node("canvas", { width: columns, height: rows }), image = new ImageData(columns, rows);
  for (let k = 0; k < rows * columns; k++) image.data.set([...colour(Math.floor(k / columns), k % columns), 255], 4 * k);
  cells.getContext("2d").putImageData(image, 0, 0);
  context.drawImage(cells, x, y, width, height);
}

function triangle(context, x, y, { down = false } = {}) {
  context.beginPath();
  for (const [dx, dy] of down ? [[-4, -6], [4, -6], [0, 0]] : [[0, -3.5], [6, 0], [0, 3.5]]) context.lineTo(x + dx, y + dy);
  context.fill();
}

function dot(context, x, y) {
  context.beginPath();
  context.arc(x, y, 3, 0, 7);
  context.fill();
}

function frame(context, x, y, width, height, colour) {
  context.strokeStyle = css(colour);
  context.lineWidth = 1.5;
  context.strokeRect(x, y, width, height);
}

/** Show `payload`, a trace as JSON, in `el`. Options: step, slot, onChange({ step, slot }). Returns { show, destroy }. */
export function mount(el, payload, { step = 0, slot = null, onChange = () => {} } = {}) {
  const trace = unpack(payload);
  const { T, C, S, N, M, L, R, W, labels } = trace;
  const state = { step: 0, slot: null, row: slot ?? 0, column: 0, pointing: false }; // row, column: the cell to read
  const colours = {};
  let layout = null;

  const root = node("div", {
    class: "memory-inspector tex2jax_ignore mathjax_ignore", role: "group", tabindex: -1, "aria-label": `Memory inspector: ${trace.title}`,
    "data-lm-suppress-shortcuts": "true",
  });
  root.innerHTML = PAGE;
  const part = (name) => root.querySelector(name);
  const [slider, strip, story, board] = [".mi-slider", ".mi-strip", ".mi-story", ".mi-board"].map(part);
  const [grid, episode, reading, minusMean] = [".mi-grid", ".mi-episode", ".mi-reading", ".mi-choice input"].map(part);
  const contents = trace.memories.map((memory) => ({ memory, canvas: node("canvas", { role: "img" }) })); // of the picked slot
  part(".mi-title").textContent = trace.title;
  part(".mi-note").textContent = trace.note;
  if (!N) part(".mi-memory").replaceChildren(node("p", { class: "mi-note" }, "This learner has no memory to show."));
  slider.max = T - 1;
  const { button: playButton, play, toggle } = player("mi", 900, {
    begin: () => { if (state.step === T - 1) show({ step: 0 }); },
    next: () => state.step < T - 1 && (show({ step: state.step + 1 }), true),
    changed: (plays) => story.setAttribute("aria-live", plays ? "off" : "polite"),
  });
  slider.before(playButton);

  // ---- Small parts ----------------------------------------------------------------------------------------------
  const thumbnail = (t) => {
    const canvas = node("canvas", { class: "mi-thumb", width: S, height: S, "aria-hidden": "true" });
    const image = new ImageData(S, S); // ink is black of some opacity; the style sheet turns it white in a dark theme
    for (let i = 0; i < S * S; i++) image.data[4 * i + 3] = trace.images[t * S * S + i];
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  };
  const chip = (label) => {
    const [red, green, blue] = rgb(classColour(label)), bright = 0.3 * red + 0.59 * green + 0.11 * blue > 115;
    const style = { background: classColour(label), color: bright ? "#000" : "#fff" };
    return node("span", { class: "mi-chip", style }, String(label));
  };
  const verdict = (t) => node("span", { class: trace.right(t) ? "mi-right" : "mi-wrong" }, trace.right(t) ? "✓" : "✗");
  const button = (change, ...children) =>
    node("button", { type: "button", class: "mi-item", onclick: () => show(change) }, ...children);
  const items = (list, otherwise, kind = "") => node("div", { class: `mi-items ${kind}` }, ...(list.length ? list : [otherwise]));
  const label = (text, kind = "") => node("p", { class: `mi-label ${kind}` }, text);
  const card = (kind, ...children) => node("div", { class: `mi-card ${kind}` }, ...children);
  const times = (share) => `${number(share, 3)} ×`;
  const slotsOf = (slots) => `slot${slots.length > 1 ? "s" : ""} ${slots.join(", ")}`;
  const image = (t) => [thumbnail(t), span(`t = ${t} `, chip(labels[t]))];
  const told = (t) => { // which label the network had just heard when it wrote at step t
    const from = t - trace.label_delay;
    if (!trace.label_delay) return "";
    return from < 0 ? "told no label yet" : span("told y", node("sub", {}, String(from)), " = ", chip(labels[from]));
  };

  const differs = (t) => trace.answers_before && trace.answers_before[t] !== trace.answers[t];
  const frames = range(T).map((t) => node("button", {
    type: "button", class: "mi-frame", style: { "--mi-class": classColour(labels[t]) }, onclick: () => show({ step: t }),
    "aria-label": `step ${t}, class ${labels[t]}, answered ${trace.answers[t]}, ${trace.right(t) ? "right" : "wrong"}` +
      (differs(t) ? `, before ${trace.answers_before[t]}` : ""),
  }, thumbnail(t), differs(t) ? node("span", { class: "mi-differs", "aria-hidden": "true" }, "≠") : "", node("span", { class: "mi-foot", "aria-hidden": "true" }, String(labels[t]), verdict(t))));
  strip.append(...frames);

  // ---- What is said about the step and the slot -----------------------------------------------------------------
  function describe(t) {
    const answer = trace.answers[t], [top] = trace.mostRead(t, 1), [last] = trace.leastRead(t, 1), written = trace.mostWritten(t).slice(0, 8);
    return [
      `t = ${t}: the ${ordinal(trace.instance[t])} image of class ${labels[t]}.`,
      `The network answers ${answer} (${percent(trace.probability(t, answer))}),`,
      trace.right(t) ? "right." : `wrong: it is ${labels[t]}.`,
      differs(t) && `Without the change it answered ${trace.answers_before[t]}.`,
      top && `Of its earlier writes it reads that of t = ${top.from} most, made at an image of class ${labels[top.from]}`
        + (trace.label_delay && top.from >= trace.label_delay
          ? ` when told that the image before was of class ${labels[top.from - trace.label_delay]}` : ""),
      top && `(${slotsOf(top.slots.slice(0, 8))}: ${times(top.share)} an even share)${last ? "" : "."}`,
      last && `and that of t = ${last.from}, class ${labels[last.from]}, least (${times(last.share)}).`,
      top && top.share < 1 && "All of them get less than an even share: the rest goes to empty slots and to those just written.",
      W && `It writes${L ? " its features" : ""} to ${written.length ? slotsOf(written) : "no slot in particular"}`
        + (L && t ? `, and label ${labels[t - 1]}, of the image at t = ${t - 1}, to where the features of that image went.` : "."),
    ].filter(Boolean).join(" ");
  }

  function showStep(t) {
    const answer = trace.answers[t];
    root.dataset.step = slider.value = state.step = t;
    slider.setAttribute("aria-valuetext", `${t} of ${T - 1}, class ${labels[t]}, answered ${trace.right(t) ? "right" : "wrong"}`);
    part(".mi-clock").textContent = `t = ${t} of ${T - 1}`;
    story.textContent = describe(t);
    frames.forEach((element, at) => {
      element.tabIndex = at === t ? 0 : -1;
      element.classList.toggle("mi-same", labels[at] === labels[t]);
      element.classList.toggle("mi-later", at > t);
      element.setAttribute("aria-current", at === t ? "step" : "false");
    });
    const bars = range(C).map((c) => {
      const width = `${100 * trace.probability(t, c)}%`, filled = node("span", { style: { width, background: classColour(c) } });
      return node("div", { class: "mi-bar" }, chip(c), node("span", { class: "mi-track" }, filled),
        node("span", { class: "mi-percent" }, percent(trace.probability(t, c))), span(c === labels[t] ? "◂ true" : ""));
    });
    const readsOf = (found) => found.map(({ from, slots, share }) =>
      button({ slot: slots[0] }, ...image(from), told(from), node("b", {}, times(share)), span(slotsOf(slots.slice(0, 4)))));
    const reads = readsOf(trace.mostRead(t, 3)), least = readsOf(trace.leastRead(t, 3));
    const writesOf = (at) => trace.mostWritten(at).slice(0, 6).map((i) =>
      button({ slot: i }, node("b", {}, `slot ${i}`), span(`weight ${number(trace.writeMass[at][i], 2)}`)));
    const writes = writesOf(t);
    part(".mi-now").replaceChildren(
      card("mi-small", label(`Input at t = ${t}`), node("div", { class: "mi-input" }, thumbnail(t), node("div", {},
        node("p", {}, "class ", chip(labels[t])), node("p", {}, `${ordinal(trace.instance[t])} image`), node("p", {}, told(t))))),
      card("", label("Answer"), node("p", { class: "mi-verdict" }, verdict(t),
        trace.right(t) ? ` right: ${answer}` : ` wrong: ${answer}, it is ${labels[t]}`), ...bars),
      R || W ? card("mi-wide",
        ...(R ? [node("div", { class: "mi-columns" },
          node("div", {}, label("● Reads most, of its earlier writes", "mi-is-read"), items(reads, "nothing yet", "mi-rows")),
          node("div", {}, label("○ Reads least of them", "mi-is-less"), items(least, "nothing yet", "mi-rows")))] : []),
        ...(W ? [label(`▸ Writes ${L ? "its features " : ""}to`, "mi-is-write"), items(writes, "no slot in particular")] : []),
        ...(L && t ? [node("p", { class: "mi-label mi-is-write" }, "▸ Writes the label ", chip(labels[t - 1]), ` of t = ${t - 1} to`),
          items(writesOf(t - 1), "no slot in particular")] : [])) : "");
  }

  function showSlot(i) {
    const place = part(".mi-slot");
    state.slot = i;
    root.dataset.slot = i ?? "";
    if (i === null) {
      place?.replaceChildren(node("p", { class: "mi-note" },
        "Pick a slot (click its row, or press Enter on it) to see when it was written, by which image, and when it was read."));
      return;
    }
    const writes = range(T).filter((t) => trace.wrote(t, i)).map((t) =>
      button({ step: t }, ...image(t), told(t), span(`weight ${number(trace.writeMass[t][i], 2)}`)));
    const later = range(T).filter((t) => trace.older(t, i)).sort((a, b) => trace.share(b, i) - trace.share(a, i));
    const readers = (steps) =>
      steps.map((t) => button({ step: t }, ...image(t), verdict(t), span(times(trace.share(t, i)))));
    const what = (memory) => (L ? memory.name : "content");
    for (const { memory, canvas } of contents) canvas.setAttribute("aria-label", `The ${what(memory)} of slot ${i} at each step`);
    place.replaceChildren(
      ...contents.map(({ memory, canvas }) => card("mi-full", label(`Slot ${i}: its ${what(memory)} over the episode`), canvas)),
      card("", label(`▸ Slot ${i} was written`, "mi-is-write"), items(writes, "never")),
      R ? card("", label("● and later read most", "mi-is-read"), items(readers(later.slice(0, 4)), "never"),
        label("○ and later read least", "mi-is-less"), items(readers(later.slice(4).slice(-4).reverse()), "never")) : "");
  }

  function showLegend() {
    const scale = Object.fromEntries(layout.tracks.map((track) => [track.name, track.scale && number(track.scale, 3)]));
    const most = (memory) => number(viewOf(memory).scale, 2);
    const key = (kind, text) => span(node("span", { class: `mi-swatch mi-swatch-${kind}`, "aria-hidden": "true" }), text);
    part(".mi-board .mi-label").textContent = L
      ? `After t = ${state.step}: ${N} slots of ${M} + ${L} numbers`
      : `The memory after t = ${state.step}: ${N} slots of ${M} numbers`;
    part(".mi-legend").replaceChildren(
      ...trace.memories.map((memory) => key("memory",
        `${memory.name}${minusMean.checked ? " minus the mean slot" : ""}, −${most(memory)} to ${most(memory)} and beyond`)),
      R ? key("read", `● read, from an even share, ${number(1 / N, 3)}, to ${scale.read}`) : "",
      R ? key("less", "○ read less than an even share") : "",
      W ? key("write", `▸ write, 0 to ${scale.write}`) : "",
      trace.usage ? key("usage", `usage, 0 to ${scale.usage}`) : "",
      trace.least_used ? span("next ▸ least used, written next") : "",
      R ? span("whole episode: ", node("span", { class: "mi-is-write" }, "written"), ", or ",
        node("span", { class: "mi-is-read" }, "read more"), ` (to ${number(trace.shareScale, 3)} × and beyond) or `,
        node("span", { class: "mi-is-less" }, "less"), ` (to ${number(trace.shareFloor, 2)} ×) than an even share`) : "");
  }

  // ---- The memory and the episode, on canvas --------------------------------------------------------------------
  const viewOf = (memory) => memory.views[minusMean.checked ? 1 : 0];
  const memoryColour = (memory, t, i, j) => {
    const { value, scale } = viewOf(memory), shown = value(t, i, j);
    return mix(colours.zero, shown < 0 ? colours.minus : colours.plus, Math.abs(shown) / scale);
  };

  /** What stands side by side in the grid: the memory, the weights of each head, usage, the least used slots. */
  function tracks(head) {
    const t = state.step;
    const weights = (name, heads, one, from) => { // coloured from `from` to the largest of the step, and to the smallest
      const all = range(N * heads).map((k) => one(t, Math.floor(k / heads), k % heads)), scale = largest(all);
      const least = all.reduce((a, b) => Math.min(a, b), from);
      const colour = (i, h) => (one(t, i, h) < from
        ? mix(colours.empty, colours.less, (from - one(t, i, h)) / (from - least))
        : mix(colours.empty, colours[name], (one(t, i, h) - from) / (scale - from || 1)));
      const value = (i, h) => one(t, i, h), says = (h) => `${name} head ${h}`;
      return { name, count: heads, width: Math.max(heads * head, 28), scale, value, colour, says };
    };
    const cells = (memory) => ({
      name: memory.name, count: memory.columns, value: (i, j) => memory.cell(t, i, j), says: (j) => `${memory.name} column ${j}`,
      colour: (i, j) => memoryColour(memory, t, i, j),
    });
    const usage = { name: "usage", count: 1, width: 34, value: (i) => trace.used(t, i), says: () => "usage" };
    const next = { name: "next", count: 1, width: 24, value: (i) => trace.least(t, i), says: () => "least used (1: written next)" };
    if (trace.usage) usage.scale = largest(range(N).map(usage.value));
    return [
      ...trace.memories.map(cells),
      R && weights("read", R, trace.read, 1 / N), W && weights("write", W, trace.write, 0),
      trace.usage && usage, trace.least_used && next,
    ].filter(Boolean);
  }

  function measure() {
    const width = board.clientWidth, ratio = window.devicePixelRatio || 1, beside = width >= 600, gap = beside ? 12 : 7;
    const snap = (size) => (size * ratio < 1 ? size : Math.floor(size * ratio) / ratio); // whole device pixels look sharp
    layout = { left: 38, top: 26, tracks: tracks(beside ? 9 : 6.5) };
    layout.row = snap(clamp((width > 900 ? 512 : 400) / N, 0, 18));
    layout.height = N * layout.row;
    const others = layout.tracks.slice(trace.memories.length);
    const taken = sum(others.map((track) => track.width + gap)) + layout.left + (trace.memories.length - 1) * gap;
    const column = snap(Math.min((width * (beside ? 0.56 : 1) - taken - 1) / (M + L), 12));
    for (const memory of layout.tracks.slice(0, trace.memories.length)) memory.width = column * memory.count;
    layout.right = layout.left - gap;
    for (const track of layout.tracks) {
      track.x = layout.right + gap;
      layout.right = track.x + track.width;
    }
    layout.cell = snap(((beside ? width - layout.right - 24 : width) - layout.left - 8) / T);
  }

  function slotAxis(context, right) {
    const { row, top, left } = layout, every = [1, 2, 4, 8, 16, 32, 64, 128, 256].find((count) => count * row >= 26) ?? 512;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (let i = 0; i < N; i++) {
      const picked = i === state.slot, covered = state.slot !== null && Math.abs(i - state.slot) * row < 13;
      if (!picked && (i % every || covered)) continue;
      context.fillStyle = css(picked ? colours.text : colours.muted);
      context.fillText(String(i), left - 15, top + (i + 0.5) * row);
    }
    if (state.slot !== null) frame(context, left - 12, top + state.slot * row - 1.5, right - left + 13, row + 3, colours.text);
  }

  function drawGrid() {
    const { row, top, left, right, height } = layout, t = state.step;
    const context = prepare(grid, right + 2, top + height + 4);
    for (const { name, x, width, count, colour, value, scale } of layout.tracks) {
      context.fillStyle = css(colours.muted);
      context.textAlign = "center";
      context.fillText(name, x + width / 2, top - 8);
      if (colour) heatMap(context, N, count, colour, x, top, width, height);
      else for (let i = 0; i < N; i++) {
        context.fillStyle = css(name === "next" ? colours.text : colours.muted);
        if (scale) context.fillRect(x, top + i * row, (width * value(i)) / scale, row > 2 ? row - 1 : row);
        else if (value(i)) triangle(context, x + width / 2 - 3, top + (i + 0.5) * row);
      }
    }
    context.fillStyle = css(colours.read);
    for (const { slots } of trace.mostRead(t, 3)) for (const i of slots) dot(context, left - 6, top + (i + 0.5) * row);
    context.fillStyle = css(colours.write);
    for (const i of trace.mostWritten(t)) triangle(context, left - 9, top + (i + 0.5) * row);
    slotAxis(context, right);
    if (!state.pointing && document.activeElement !== grid) return;
    const { x, width } = cellAt(state.column);
    frame(context, x - 1.5, top + state.row * row - 1.5, width + 3, row + 3, colours.focus);
  }

  function drawEpisode() {
    const { row, top, left, cell, height } = layout, t = state.step, width = cell * T;
    const context = prepare(episode, left + width + 8, top + height + 4), middle = (at) => left + (at + 0.5) * cell;
    heatMap(context, N, T, (i, at) => (trace.wrote(at, i)
      ? mix(colours.empty, colours.write, 0.35 + (0.65 * trace.writeMass[at][i]) / trace.writeScale)
      : trace.share(at, i) < 1
        ? mix(colours.empty, colours.less, (1 - trace.share(at, i)) / (1 - trace.shareFloor))
        : mix(colours.empty, colours.read, (trace.share(at, i) - 1) / (trace.shareScale - 1))), left, top, width, height);
    for (let at = 0; at < T; at++) { // the classes; those like the present one stand out
      const same = labels[at] === labels[t];
      context.globalAlpha = same ? 1 : 0.35;
      context.fillStyle = classColour(labels[at]);
      context.fillRect(left + at * cell, top - (same ? 9 : 5), Math.max(cell - 1, 1), same ? 8 : 4);
    }
    context.globalAlpha = 1;
    context.textAlign = "center";
    const every = [1, 2, 5, 10, 20, 50, 100].find((count) => count * cell >= 26) ?? 200;
    for (const at of range(T).filter((at) => at === t || (at % every === 0 && Math.abs(at - t) * cell > 30))) {
      context.fillStyle = css(at === t ? colours.text : colours.muted);
      context.fillText(at === t ? `t = ${at}` : String(at), clamp(middle(at), left + 4, left + width - 12), top - 13);
    }
    frame(context, left + t * cell - 1, top - 10, cell + 2, height + 11, colours.text);
    context.strokeStyle = context.fillStyle = css(colours.read);
    for (const { from, slots } of trace.mostRead(t, 3)) { // a line from the write to the present reading
      const y = top + (slots[0] + 0.5) * row;
      context.beginPath();
      context.moveTo(middle(from), y);
      context.lineTo(middle(t), y);
      context.stroke();
      dot(context, middle(t), y);
    }
    slotAxis(context, left + width);
  }

  function drawContent() {
    if (state.slot === null) return;
    for (const { memory, canvas } of contents) {
      const width = canvas.parentElement.clientWidth - 24, cell = width / T, height = clamp(2 * memory.columns, 30, 80);
      const context = prepare(canvas, width, height + 14), late = memory.name === "labels" ? 1 : 0;
      heatMap(context, memory.columns, T, (j, t) => memoryColour(memory, t, state.slot, j), 0, 12, width, height);
      context.fillStyle = css(colours.write);
      for (const t of range(T - late).filter((t) => trace.wrote(t, state.slot))) {
        triangle(context, (t + late + 0.5) * cell, 10, { down: true });
      }
      frame(context, clamp(state.step * cell, 1, width - cell - 1), 12, cell, height, colours.text);
    }
  }

  function draw() {
    root.dataset.theme = darkTheme() ? "dark" : "light";
    if (!root.isConnected) return; // a notebook may render first and attach later: the size observer calls again
    const style = getComputedStyle(root);
    for (const name of ["text", "muted", "empty", "zero", "minus", "plus", "read", "less", "write", "focus"]) {
      colours[name] = rgb(style.getPropertyValue(`--mi-${name}`));
    }
    const rows = Math.ceil(T / Math.max(Math.floor(strip.clientWidth / 30), 1)); // of equal length
    strip.style.gridTemplateColumns = `repeat(${Math.ceil(T / rows)}, minmax(0, 1fr))`;
    if (!N || !board.clientWidth) return;
    measure();
    drawGrid();
    drawEpisode();
    drawContent();
    showLegend();
  }

  // ---- Pointing and keys ----------------------------------------------------------------------------------------
  const cellCount = () => sum(layout.tracks.map(({ count }) => count));
  function cellAt(column) {
    const track = layout.tracks.find(({ count }) => column < count || ((column -= count), false));
    const width = track.width / track.count;
    return { track, column, x: track.x + column * width, width };
  }
  function readCell() {
    const { track, column } = cellAt(state.column), value = track.value(state.row, column);
    const even = track.name === "read" ? ` (${number(value * N, 3)} × an even share)` : "";
    reading.textContent = `t = ${state.step}, slot ${state.row}, ${track.says(column)}: ${number(value)}${even}`;
  }
  function place(event) { // of the pointer: x in pixels, the row, the step
    const box = event.currentTarget.getBoundingClientRect(), x = event.clientX - box.left;
    const row = Math.floor((event.clientY - box.top - layout.top) / layout.row);
    return { x, row: row >= 0 && row < N ? row : null, t: clamp(Math.floor((x - layout.left) / layout.cell), 0, T - 1) };
  }
  const pointAt = (row, column) => {
    Object.assign(state, { row: clamp(row, 0, N - 1), column: clamp(column, 0, cellCount() - 1) });
    drawGrid();
    readCell();
  };
  const on = (element, handlers) => {
    for (const [name, handler] of Object.entries(handlers)) element.addEventListener(name, handler);
  };
  const leave = () => { state.pointing = false; drawGrid(); };
  on(grid, {
    pointermove(event) {
      const { x, row } = place(event), within = (cell) => x >= cell.x && x < cell.x + cell.width;
      const column = range(cellCount()).find((c) => within(cellAt(c)));
      state.pointing = row !== null && column !== undefined;
      if (state.pointing) pointAt(row, column);
    },
    pointerleave: leave, blur: leave, focus: () => pointAt(state.row, state.column),
    click: (event) => show({ slot: place(event).row ?? state.slot }),
  });
  on(episode, {
    pointermove(event) {
      const { t, row } = place(event);
      if (row === null) return;
      const written = W ? [`written ${number(trace.writeMass[t][row], 3)}`] : [];
      const read = R ? [`read ${number(trace.readMass[t][row], 3)} (${times(trace.share(t, row))} an even share)`] : [];
      reading.textContent = `t = ${t}, slot ${row}: ${[...written, ...read].join(", ")}`;
    },
    click: (event) => show({ step: place(event).t, slot: place(event).row ?? state.slot }),
  });
  on(slider, { input: () => show({ step: Number(slider.value) }) });
  on(minusMean, { change: draw });

  const keys = {
    ArrowLeft: () => show({ step: state.step - 1 }), ArrowRight: () => show({ step: state.step + 1 }),
    Home: () => show({ step: 0 }), End: () => show({ step: T - 1 }),
    " ": toggle, Escape: () => show({ slot: null }),
  };
  const move = (rows, columns) => () => pointAt(state.row + rows, state.column + columns);
  const gridKeys = {
    ...keys, ArrowLeft: move(0, -1), ArrowRight: move(0, 1), ArrowUp: move(-1, 0), ArrowDown: move(1, 0),
    PageUp: move(-10, 0), PageDown: move(10, 0), Enter: () => show({ slot: state.row }),
  };
  on(root, {
    keydown(event) {
      const action = (event.target === grid ? gridKeys : keys)[event.key];
      const pressed = event.key === " " && event.target.matches("button, [type=checkbox]"); // the browser presses it
      if (!action || pressed || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      action();
      if (frames.includes(event.target)) frames[state.step].focus();
    },
  });

  // ---- Keeping it all up to date --------------------------------------------------------------------------------
  function show({ step: wanted = state.step, slot: picked = state.slot }) {
    const t = clamp(wanted, 0, T - 1), within = root.contains(document.activeElement);
    if (t === state.step && picked === state.slot) return;
    if (t !== state.step) showStep(t);
    if (picked !== state.slot) showSlot(picked);
    draw();
    if (within && !root.contains(document.activeElement)) root.focus({ preventScroll: true }); // what had it is gone
    onChange({ step: t, slot: picked });
  }

  showStep(clamp(step, 0, T - 1));
  showSlot(slot !== null && slot < N ? slot : null);
  const destroy = keepDrawn(el, root, draw, { resize: draw, leave: () => play(false) });
  play(false);
  return { show, destroy };
}

/** Mount every inspector of a static page that is not mounted yet. */
export const mountAll = () => mountEach("mi", (place, { trace, step, slot }) => mount(place, trace, { step, slot }));

export default { render: renderer(mount, "trace", ["step", "slot"]) };
