// The memory inspector: shows a trace (lib/inspector/trace.py), what a network did to its memory over one episode.
// `mount` puts it on a page; the default export does the same in a live notebook (anywidget). Steps, slots and labels
// count from 0, as in the trace.

const CLASS_COLOURS = ["#cc6677", "#ddcc77", "#44aa99", "#882255", "#88ccee", "#999933", "#aa4499", "#117733", "#332288", "#bbbbbb"];
const TYPES = { uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array };
const PLAY = "M3 1.5v11l9-5.5z", PAUSE = "M3 2h3v10H3zM8 2h3v10H8z";

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const range = (count) => Array.from({ length: count }, (_, i) => i);
const largest = (values) => values.reduce((a, b) => Math.max(a, b), 0) || 1;
const number = (value, digits = 4) => String(Number(value.toPrecision(digits))).replace("-", "−");
const percent = (value) => `${(100 * value).toFixed(1)} %`;
const ordinal = (n) => n + (n % 100 > 10 && n % 100 < 14 ? "th" : ["th", "st", "nd", "rd"][n % 10] ?? "th");
const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.trim().slice(i, i + 2), 16));
const css = (channels) => `rgb(${channels.join(" ")})`;
const mix = (from, to, part) => from.map((channel, i) => Math.round(channel + (to[i] - channel) * clamp(part, 0, 1)));
const classColour = (label) => CLASS_COLOURS[label % CLASS_COLOURS.length];

/** An element with attributes (also `style`, an object, and `on…`, a function) and children. */
function node(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") for (const [property, setting] of Object.entries(value)) element.style.setProperty(property, setting);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** The arrays of a trace as numbers, and what follows from them: who is right, and what each slot lived through. */
function unpack(payload) {
  const arrays = {}, shapes = {};
  for (const [name, { dtype, shape, scale = 1, data }] of Object.entries(payload.arrays)) {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    arrays[name] = Float64Array.from(new TYPES[dtype](bytes.buffer), (value) => value * scale);
    shapes[name] = shape;
  }
  const [T, C] = shapes.probabilities, S = shapes.images[1], [, N, M] = shapes.memory ?? [T, 0, 0];
  const R = shapes.read_weights?.[1] ?? 0, W = shapes.write_weights?.[1] ?? 0;
  const weight = (name, heads) => (t, slot, head) => arrays[name][(t * heads + head) * N + slot];
  const read = weight("read_weights", R), write = weight("write_weights", W);
  const sums = (one, heads) =>
    range(T).map((t) => range(N).map((slot) => range(heads).reduce((sum, head) => sum + one(t, slot, head), 0)));
  const readMass = sums(read, R), writeMass = sums(write, W);
  const writer = []; // for each step and slot: the last step that wrote into it, or -1
  for (let t = 0; t < T; t++) {
    const enough = Math.max((payload.written * writeMass[t].reduce((a, b) => a + b, 0)) / N, 1e-9);
    writer.push(writeMass[t].map((mass, slot) => (mass >= enough ? t : t ? writer[t - 1][slot] : -1)));
  }
  const answers = range(T).map((t) => {
    const row = arrays.probabilities.subarray(t * C, (t + 1) * C);
    return row.indexOf(Math.max(...row));
  });
  const share = (t, slot) => (R ? (readMass[t][slot] * N) / R : 0); // 1 if all slots are read alike
  const most = (values, part) => Float64Array.from(values).sort()[Math.floor(part * values.length)]; // but for outliers
  const readings = range(T).flatMap((t) => range(N).map((slot) => (writer[t][slot] === t ? 0 : share(t, slot))));
  const cell = (t, slot, column) => arrays.memory[(t * N + slot) * M + column];
  const mean = range(N ? T : 0).map((t) => range(M).map((j) => range(N).reduce((sum, slot) => sum + cell(t, slot, j), 0) / N));
  const fromMean = (t, slot, column) => cell(t, slot, column) - mean[t][column];
  const scaleOf = (view) => most(range(N * T * M).map((k) => Math.abs(view(Math.floor(k / (N * M)), Math.floor(k / M) % N, k % M))), 0.99) || 1;
  return {
    ...payload, ...arrays, T, C, S, N, M, R, W, read, write, readMass, writeMass, writer, answers, share,
    cell, views: N ? [{ value: cell, scale: scaleOf(cell) }, { value: fromMean, scale: scaleOf(fromMean) }] : [],
    used: (t, slot) => arrays.usage[t * N + slot],
    least: (t, slot) => arrays.least_used[t * N + slot],
    right: (t) => answers[t] === arrays.labels[t],
    wrote: (t, slot) => writer[t][slot] === t,
    shareScale: Math.max(most(readings, 0.995), 1.01),
    writeScale: largest(writeMass.flat()),
    // The most read slot of each of `count` images. A step's own new slots hold the very keys that it reads with: they
    // say nothing of the past and are left out.
    mostRead: (t, count) => range(R ? N : 0).filter((slot) => writer[t][slot] >= 0 && writer[t][slot] < t)
      .sort((a, b) => readMass[t][b] - readMass[t][a])
      .filter((slot, place, all) => all.findIndex((other) => writer[t][other] === writer[t][slot]) === place).slice(0, count),
    mostWritten: (t) => range(N).filter((slot) => writer[t][slot] === t).sort((a, b) => writeMass[t][b] - writeMass[t][a]),
  };
}

/** Is the page dark? Sphinx themes, JupyterLab, VS Code and Colab say so in attributes; else the system does. */
function darkTheme() {
  const page = document.documentElement, body = document.body;
  if (page.dataset.theme) return page.dataset.theme === "dark";
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false";
  if (body.dataset.vscodeThemeKind) return body.dataset.vscodeThemeKind.includes("dark");
  return page.getAttribute("theme") === "dark" || matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Size a canvas in CSS pixels, sharp on any screen; returns its context, cleared. */
function prepare(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.imageSmoothingEnabled = false;
  context.font = `11px ${getComputedStyle(canvas).fontFamily}`;
  return context;
}

/** A grid of coloured cells; `colour(row, column)` gives [red, green, blue]. */
function heatMap(context, rows, columns, colour, x, y, width, height) {
  const cells = node("canvas", { width: columns, height: rows }), image = new ImageData(columns, rows);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) image.data.set([...colour(row, column), 255], 4 * (row * columns + column));
  }
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

/** Show `payload`, a trace as JSON, in `el`. Options: step, slot, onChange({ step, slot }). Returns { show, destroy }. */
export function mount(el, payload, { step = 0, slot = null, onChange = () => {} } = {}) {
  const trace = unpack(payload);
  const { T, C, S, N, M, R, W, labels } = trace;
  const state = { step: 0, slot: null, row: slot ?? 0, column: 0, pointing: false }; // row and column: the cell to read
  const colours = {};
  let timer = null, layout = null;

  // ---- The page -------------------------------------------------------------------------------------------------
  const thumbnail = (t) => {
    const canvas = node("canvas", { class: "mi-thumb", width: S, height: S, "aria-hidden": "true" });
    const image = new ImageData(S, S); // ink is black of some opacity; the style sheet turns it white in a dark theme
    for (let i = 0; i < S * S; i++) image.data[4 * i + 3] = trace.images[t * S * S + i];
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  };
  const chip = (label) => {
    const [red, green, blue] = rgb(classColour(label)), bright = 0.3 * red + 0.59 * green + 0.11 * blue > 115;
    return node("span", { class: "mi-chip", style: { background: classColour(label), color: bright ? "#000" : "#fff" } }, String(label));
  };
  const verdict = (t) => node("span", { class: trace.right(t) ? "mi-right" : "mi-wrong" }, trace.right(t) ? "✓" : "✗");
  const button = (change, ...children) => node("button", { type: "button", class: "mi-item", onclick: () => show(change) }, ...children);
  const items = (list, otherwise, kind = "") => node("div", { class: `mi-items ${kind}` }, ...(list.length ? list : [otherwise]));
  const label = (text, kind = "") => node("p", { class: `mi-label ${kind}` }, text);

  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  icon.setAttribute("viewBox", "0 0 14 14");
  icon.setAttribute("aria-hidden", "true");
  icon.append(document.createElementNS(icon.namespaceURI, "path"));
  const play = node("button", { type: "button", class: "mi-play", onclick: () => playing(timer === null) }, icon);
  const slider = node("input", { type: "range", min: 0, max: T - 1, step: 1, "aria-label": "Step", oninput: () => show({ step: Number(slider.value) }) });
  const clock = node("span", { class: "mi-clock" });
  const frames = range(T).map((t) => node("button", {
    type: "button", class: "mi-frame", style: { "--mi-class": classColour(labels[t]) }, onclick: () => show({ step: t }),
    "aria-label": `step ${t}, class ${labels[t]}, answered ${trace.answers[t]}, ${trace.right(t) ? "right" : "wrong"}`,
  }, thumbnail(t), node("span", { class: "mi-foot", "aria-hidden": "true" }, String(labels[t]), verdict(t))));
  const strip = node("div", { class: "mi-strip", role: "group", "aria-label": "The images of the episode" }, ...frames);
  const story = node("p", { class: "mi-story", "aria-live": "polite" });
  const now = node("div", { class: "mi-cards" });
  const grid = node("canvas", { class: "mi-grid", tabindex: 0, role: "application", "aria-label":
    `Memory of ${N} slots by ${M} columns, then weights and usage. Arrow keys move to a cell and read its value, Enter picks its slot.` });
  const episode = node("canvas", { class: "mi-episode", role: "img", "aria-label":
    "Which slot was written and read at which step. With the keyboard, the slider and the memory tell the same." });
  const minus = node("input", { type: "checkbox", onchange: () => draw() });
  const gridTitle = node("figcaption", { class: "mi-label" });
  const board = node("div", { class: "mi-board" }, node("figure", {}, gridTitle, grid),
    node("figure", {}, node("figcaption", { class: "mi-label" }, "The whole episode: slot by step"), episode));
  const reading = node("output", { class: "mi-reading" }, "Point at a cell, or use the arrow keys in the memory, to read its exact value.");
  const legend = node("div", { class: "mi-legend" });
  const choice = node("label", { class: "mi-choice" }, minus, "Colour how each slot differs from the mean slot");
  const life = node("div", { class: "mi-cards" });
  const content = node("canvas", { role: "img" });
  const root = node("div", {
    class: "mi tex2jax_ignore mathjax_ignore", role: "group", tabindex: -1, "data-lm-suppress-shortcuts": "true",
    "aria-label": `Memory inspector: ${trace.title}`,
  }, node("p", { class: "mi-title" }, trace.title), node("p", { class: "mi-note" }, trace.note),
  node("div", { class: "mi-controls" }, play, slider, clock), strip, story, now,
  ...(N ? [board, reading, choice, legend, life] : [node("p", { class: "mi-note" }, "This learner has no memory to show.")]));
  el.replaceChildren(root);

  // ---- What is said about the step and the slot -----------------------------------------------------------------
  const times = (t, i) => `${number(trace.share(t, i), 3)} ×`;
  const told = (t) => { // what a write of step t knew beside the image
    if (!trace.label_delay) return [];
    return t < trace.label_delay ? ["told no label yet"] : ["told y", node("sub", {}, String(t - trace.label_delay)), " = ", chip(labels[t - trace.label_delay])];
  };
  const image = (t) => [thumbnail(t), node("span", {}, `t = ${t} `, chip(labels[t]))];

  function describe() {
    const t = state.step, answer = trace.answers[t], [top] = trace.mostRead(t, 1), written = trace.mostWritten(t).slice(0, 8);
    return [
      `t = ${t}: the ${ordinal(trace.instance[t])} image of class ${labels[t]}.`,
      `The network answers ${answer} (${percent(trace.probabilities[t * C + answer])}), ${trace.right(t) ? "right" : `wrong: it is ${labels[t]}`}.`,
      top !== undefined && `Of the images it wrote before, it reads that of t = ${trace.writer[t][top]} most ` +
        `(class ${labels[trace.writer[t][top]]}, in slot ${top}, ${times(t, top)} an even share).`,
      W && (written.length ? `It writes to slot${written.length > 1 ? "s" : ""} ${written.join(", ")}.` : "It writes to no slot in particular."),
    ].filter(Boolean).join(" ");
  }

  function drawNow() {
    const t = state.step, answer = trace.answers[t], chance = (c) => trace.probabilities[t * C + c];
    const likely = range(C).sort((a, b) => chance(b) - chance(a)).slice(0, 8);
    if (!likely.includes(labels[t])) likely[7] = labels[t];
    const bars = likely.sort((a, b) => a - b).map((c) => node("div", { class: "mi-bar" }, chip(c),
      node("span", { class: "mi-track" }, node("span", { style: { width: percent(chance(c)).replace(" ", ""), background: classColour(c) } })),
      node("span", { class: "mi-percent" }, percent(chance(c))), node("span", {}, c === labels[t] ? "◂ true" : "")));
    const reads = trace.mostRead(t, 3).map((i) =>
      button({ slot: i }, node("b", {}, `slot ${i}`), node("span", {}, times(t, i)), ...image(trace.writer[t][i]), node("span", {}, ...told(trace.writer[t][i]))));
    const writes = trace.mostWritten(t).slice(0, 6).map((i) =>
      button({ slot: i }, node("b", {}, `slot ${i}`), node("span", {}, number(trace.writeMass[t][i], 2))));
    now.replaceChildren(
      node("div", { class: "mi-card mi-small" }, label(`Input at t = ${t}`), node("div", { class: "mi-input" }, thumbnail(t), node("div", {},
        node("p", {}, "class ", chip(labels[t])), node("p", {}, `${ordinal(trace.instance[t])} image`), node("p", {}, ...told(t))))),
      node("div", { class: "mi-card" }, label("Answer"),
        node("p", { class: "mi-verdict" }, verdict(t), trace.right(t) ? ` right: ${answer}` : ` wrong: ${answer}, it is ${labels[t]}`), ...bars));
    if (!N) return;
    now.append(node("div", { class: "mi-card mi-wide" },
      ...(R ? [label("● Reads most, of the images before", "mi-is-read"), items(reads, "nothing yet", "mi-rows")] : []),
      ...(W ? [label("▸ Writes to", "mi-is-write"), items(writes, "no slot in particular")] : [])));
  }

  function listSlot() {
    const i = state.slot;
    if (i === null) {
      life.replaceChildren(node("p", { class: "mi-note" },
        "Pick a slot (click its row, or press Enter on it) to see when it was written, by which image, and when it was read."));
      return;
    }
    const written = range(T).filter((t) => trace.wrote(t, i));
    const later = range(T).filter((t) => trace.writer[t][i] >= 0 && !trace.wrote(t, i)).sort((a, b) => trace.share(b, i) - trace.share(a, i));
    content.setAttribute("aria-label", `The content of slot ${i} at each step`);
    life.replaceChildren(
      node("div", { class: "mi-card mi-full" }, label(`Slot ${i}: its content over the episode`), content),
      node("div", { class: "mi-card" }, label(`▸ Slot ${i} was written`, "mi-is-write"), items(written.map((t) =>
        button({ step: t }, ...image(t), node("span", {}, ...told(t)), node("span", {}, `weight ${number(trace.writeMass[t][i], 2)}`))), "never")),
      ...(R ? [node("div", { class: "mi-card" }, label("● and later read most", "mi-is-read"), items(later.slice(0, 6).map((t) =>
        button({ step: t }, ...image(t), verdict(t), node("span", {}, times(t, i)))), "never"))] : []));
  }

  function drawSlot() {
    if (state.slot === null) return;
    const width = content.parentElement.clientWidth - 24, cell = width / T, height = clamp(2 * M, 30, 80);
    const context = prepare(content, width, height + 14);
    heatMap(context, M, T, (j, t) => memoryColour(t, state.slot, j), 0, 12, width, height);
    context.fillStyle = css(colours.write);
    for (const t of range(T).filter((t) => trace.wrote(t, state.slot))) triangle(context, (t + 0.5) * cell, 10, { down: true });
    frame(context, clamp(state.step * cell, 1, width - cell - 1), 12, cell, height);
  }

  // ---- The memory and the episode, on canvas --------------------------------------------------------------------
  const view = () => trace.views[minus.checked ? 1 : 0];
  const memoryColour = (t, i, j) => {
    const value = view().value(t, i, j);
    return mix(colours.zero, value < 0 ? colours.minus : colours.plus, Math.abs(value) / view().scale);
  };
  const frame = (context, x, y, width, height, colour = colours.text) => {
    context.strokeStyle = css(colour);
    context.lineWidth = 1.5;
    context.strokeRect(x, y, width, height);
  };

  /** What stands side by side in the grid: the memory, the weights of each head, usage, the least used slots. */
  function tracks() {
    const t = state.step, weights = (name, heads, one, from) => { // coloured from `from` to the largest of the step
      const scale = largest(range(N * heads).map((k) => one(t, Math.floor(k / heads), k % heads)));
      return { name, count: heads, scale, width: Math.max(heads * (layout?.roomy ? 9 : 6.5), 28), value: (i, h) => one(t, i, h),
        colour: (i, h) => mix(colours.empty, colours[name], (one(t, i, h) - from) / (scale - from || 1)), says: (h) => `${name} head ${h}` };
    };
    return [
      { name: "memory", count: M, value: (i, j) => trace.cell(t, i, j), colour: (i, j) => memoryColour(t, i, j), says: (j) => `memory column ${j}` },
      R && weights("read", R, trace.read, 1 / N),
      W && weights("write", W, trace.write, 0),
      trace.usage && { name: "usage", count: 1, width: 34, scale: largest(range(N).map((i) => trace.used(t, i))), value: (i) => trace.used(t, i), says: () => "usage" },
      trace.least_used && { name: "next", count: 1, width: 24, value: (i) => trace.least(t, i), says: () => "least used (1: written next)" },
    ].filter(Boolean);
  }

  function measure() {
    const width = board.clientWidth, ratio = window.devicePixelRatio || 1, beside = width >= 600, gap = beside ? 12 : 7;
    const snap = (size) => Math.max(Math.floor(size * ratio) / ratio, 1 / ratio); // whole device pixels look sharp
    layout = { roomy: beside, left: 38, top: 26 };
    layout.row = N > 384 ? 384 / N : snap(clamp((width > 900 ? 512 : 400) / N, 0, 18));
    layout.height = N * layout.row;
    layout.tracks = tracks();
    const [memory, ...others] = layout.tracks, taken = others.reduce((sum, track) => sum + track.width + gap, layout.left);
    memory.width = snap(Math.min((width * (beside ? 0.56 : 1) - taken - 1) / M, 12)) * M;
    layout.right = layout.tracks.reduce((x, track) => { track.x = x; return x + track.width + gap; }, layout.left) - gap;
    layout.cell = snap(((beside ? width - layout.right - 24 : width) - layout.left - 8) / T);
  }

  function slotAxis(context, right) {
    const { row, top, left } = layout, every = [1, 2, 4, 8, 16, 32, 64, 128, 256].find((count) => count * row >= 26) ?? 512;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (let i = 0; i < N; i++) {
      const covered = state.slot !== null && i !== state.slot && Math.abs(i - state.slot) * row < 13;
      if (i !== state.slot && (i % every || covered)) continue;
      context.fillStyle = css(i === state.slot ? colours.text : colours.muted);
      context.fillText(String(i), left - 14, top + (i + 0.5) * row);
    }
    if (state.slot !== null) frame(context, left - 11, top + state.slot * row - 1.5, right - left + 12, row + 3);
  }

  function drawGrid() {
    const { row, top, left, right, height } = layout, t = state.step;
    const context = prepare(grid, right + 2, top + height + 4);
    for (const track of layout.tracks) {
      const { name, x, width, count, colour, value, scale } = track;
      context.fillStyle = css(colours.muted);
      context.textAlign = "center";
      context.fillText(name, x + width / 2, top - 8);
      if (colour) heatMap(context, N, count, colour, x, top, width, height);
      else for (let i = 0; i < N; i++) {
        const y = top + i * row;
        context.fillStyle = css(name === "next" ? colours.text : colours.muted);
        if (name === "usage") context.fillRect(x, y, (width * value(i)) / scale, row > 2 ? row - 1 : row);
        else if (value(i)) triangle(context, x + width / 2 - 3, y + row / 2);
      }
    }
    context.fillStyle = css(colours.read);
    for (const i of trace.mostRead(t, 3)) dot(context, left - 6, top + (i + 0.5) * row);
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
      : mix(colours.empty, colours.read, (trace.share(at, i) - 1) / (trace.shareScale - 1))), left, top, width, height);
    for (let at = 0; at < T; at++) { // the classes; those like the present one stand out
      const same = labels[at] === labels[t];
      context.globalAlpha = same ? 1 : 0.35;
      context.fillStyle = css(rgb(classColour(labels[at])));
      context.fillRect(left + at * cell, top - (same ? 9 : 5), Math.max(cell - 1, 1), same ? 8 : 4);
    }
    context.globalAlpha = 1;
    context.textAlign = "center";
    const every = [1, 2, 5, 10, 20, 50, 100].find((count) => count * cell >= 26) ?? 200;
    for (const at of range(T).filter((at) => at === t || (at % every === 0 && Math.abs(at - t) * cell > 30))) {
      context.fillStyle = css(at === t ? colours.text : colours.muted);
      context.fillText(at === t ? `t = ${at}` : String(at), clamp(middle(at), left + 4, left + width - 12), top - 13);
    }
    frame(context, left + t * cell - 1, top - 10, cell + 2, height + 11);
    context.strokeStyle = context.fillStyle = css(colours.read);
    for (const i of trace.mostRead(t, 3)) { // from the write to the present reading
      const y = top + (i + 0.5) * row;
      context.beginPath();
      context.moveTo(middle(trace.writer[t][i]), y);
      context.lineTo(middle(t), y);
      context.stroke();
      dot(context, middle(t), y);
    }
    slotAxis(context, left + width);
  }

  function drawLegend() {
    const scales = Object.fromEntries(layout.tracks.map(({ name, scale }) => [name, scale && number(scale, 3)]));
    const key = (kind, text) => node("span", {}, node("span", { class: `mi-swatch mi-swatch-${kind}`, "aria-hidden": "true" }), text);
    const most = number(view().scale, 2);
    gridTitle.textContent = `The memory after t = ${state.step}: ${N} slots of ${M} numbers`;
    legend.replaceChildren(...[
      key("memory", `memory${minus.checked ? " minus the mean slot" : ""}, −${most} to ${most} and beyond`),
      R && key("read", `● read, from an even share, ${number(1 / N, 3)}, to ${scales.read}`),
      W && key("write", `▸ write 0 to ${scales.write}`),
      trace.usage && key("usage", `usage 0 to ${scales.usage}`),
      trace.least_used && node("span", {}, "next ▸ least used, written next"),
      R && node("span", {}, "whole episode: ", node("span", { class: "mi-is-write" }, "written"), ", or ", node("span", { class: "mi-is-read" }, "read"),
        ` more than an even share, to ${number(trace.shareScale, 3)} × and beyond`),
    ].filter(Boolean));
  }

  // ---- Pointing and keys ----------------------------------------------------------------------------------------
  const cellCount = () => layout.tracks.reduce((sum, { count }) => sum + count, 0);
  function cellAt(column) {
    const track = layout.tracks.find(({ count }) => column < count || (column -= count, false)), width = track.width / track.count;
    return { track, column, x: track.x + column * width, width };
  }
  function readCell() {
    const { track, column } = cellAt(state.column), value = track.value(state.row, column);
    const even = track.name === "read" ? ` (${number(value * N, 3)} × an even share)` : "";
    reading.textContent = `t = ${state.step}, slot ${state.row}, ${track.says(column)}: ${number(value)}${even}`;
  }
  function place(event) { // of the pointer: x in pixels, and the row
    const box = event.currentTarget.getBoundingClientRect(), row = Math.floor((event.clientY - box.top - layout.top) / layout.row);
    return { x: event.clientX - box.left, row: row >= 0 && row < N ? row : null };
  }
  const stepAt = (x) => clamp(Math.floor((x - layout.left) / layout.cell), 0, T - 1);
  grid.addEventListener("pointermove", (event) => {
    const { x, row } = place(event);
    const column = range(cellCount()).find((c) => x >= cellAt(c).x && x < cellAt(c).x + cellAt(c).width);
    if (row === null || column === undefined) return;
    Object.assign(state, { row, column, pointing: true });
    drawGrid();
    readCell();
  });
  const leave = () => { state.pointing = false; drawGrid(); };
  grid.addEventListener("pointerleave", leave);
  grid.addEventListener("blur", leave);
  grid.addEventListener("focus", () => { drawGrid(); readCell(); });
  grid.addEventListener("click", (event) => { const { row } = place(event); if (row !== null) show({ slot: row }); });
  episode.addEventListener("pointermove", (event) => {
    const { x, row } = place(event), t = stepAt(x);
    if (row === null) return;
    reading.textContent = `t = ${t}, slot ${row}: ` + [W && `written ${number(trace.writeMass[t][row], 3)}`,
      R && `read ${number(trace.readMass[t][row], 3)} (${times(t, row)} an even share)`].filter(Boolean).join(", ");
  });
  episode.addEventListener("click", (event) => { const { x, row } = place(event); show({ step: stepAt(x), slot: row ?? state.slot }); });

  const move = (rows, columns) => () => {
    Object.assign(state, { row: clamp(state.row + rows, 0, N - 1), column: clamp(state.column + columns, 0, cellCount() - 1) });
    drawGrid();
    readCell();
  };
  const keys = {
    ArrowLeft: () => show({ step: state.step - 1 }), ArrowRight: () => show({ step: state.step + 1 }),
    Home: () => show({ step: 0 }), End: () => show({ step: T - 1 }), " ": () => playing(timer === null), Escape: () => show({ slot: null }),
  };
  const gridKeys = {
    ...keys, ArrowLeft: move(0, -1), ArrowRight: move(0, 1), ArrowUp: move(-1, 0), ArrowDown: move(1, 0),
    PageUp: move(-10, 0), PageDown: move(10, 0), Enter: () => show({ slot: state.row }),
  };
  root.addEventListener("keydown", (event) => {
    const action = (event.target === grid ? gridKeys : keys)[event.key];
    const presses = event.key === " " && event.target.tagName === "BUTTON"; // that is how a button is pressed
    if (!action || presses || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    action();
    if (frames.includes(event.target)) frames[state.step].focus();
  });

  // ---- Keeping it all up to date --------------------------------------------------------------------------------
  function playing(on) {
    clearInterval(timer);
    timer = null;
    if (on && state.step === T - 1) show({ step: 0 });
    if (on) timer = setInterval(() => (state.step < T - 1 ? show({ step: state.step + 1 }) : playing(false)), 900);
    story.setAttribute("aria-live", on ? "off" : "polite");
    play.setAttribute("aria-label", on ? "Pause" : "Play");
    icon.firstChild.setAttribute("d", on ? PAUSE : PLAY);
  }

  function draw() {
    const rows = Math.ceil(T / Math.max(Math.floor(strip.clientWidth / 30), 1));
    strip.style.gridTemplateColumns = `repeat(${Math.ceil(T / rows)}, minmax(0, 1fr))`;
    if (!N || !board.clientWidth) return;
    measure();
    drawGrid();
    drawEpisode();
    drawLegend();
    drawSlot();
  }

  function toStep(t) {
    root.dataset.step = state.step = t;
    slider.value = t;
    slider.setAttribute("aria-valuetext", `${t} of ${T - 1}, class ${labels[t]}, answered ${trace.right(t) ? "right" : "wrong"}`);
    clock.textContent = `t = ${t} of ${T - 1}`;
    story.textContent = describe();
    frames.forEach((element, at) => {
      element.tabIndex = at === t ? 0 : -1;
      element.classList.toggle("mi-same", labels[at] === labels[t]);
      element.classList.toggle("mi-later", at > t);
      element.setAttribute("aria-current", at === t ? "step" : "false");
    });
    drawNow();
  }

  function toSlot(slot) {
    state.slot = slot;
    root.dataset.slot = slot ?? "";
    listSlot();
  }

  function show({ step = state.step, slot = state.slot }) {
    const t = clamp(step, 0, T - 1), stays = t === state.step;
    if (stays && slot === state.slot) return;
    const within = root.contains(document.activeElement);
    if (!stays) toStep(t);
    if (slot !== state.slot) toSlot(slot);
    draw();
    if (within && !root.contains(document.activeElement)) root.focus({ preventScroll: true }); // what had it is gone
    onChange({ step: state.step, slot: state.slot });
  }

  function retheme() {
    root.dataset.theme = darkTheme() ? "dark" : "light";
    const style = getComputedStyle(root);
    for (const name of ["text", "muted", "empty", "zero", "minus", "plus", "read", "write", "focus"]) colours[name] = rgb(style.getPropertyValue(`--mi-${name}`));
    draw();
  }

  const themes = new MutationObserver(retheme), resizes = new ResizeObserver(draw);
  const system = matchMedia("(prefers-color-scheme: dark)");
  const attributeFilter = ["data-theme", "theme", "data-jp-theme-light", "data-vscode-theme-kind"];
  for (const page of [document.documentElement, document.body]) themes.observe(page, { attributeFilter });
  system.addEventListener("change", retheme);
  playing(false);
  toStep(clamp(step, 0, T - 1));
  toSlot(slot !== null && slot < N ? slot : null);
  retheme();
  resizes.observe(root);
  return {
    show,
    destroy() {
      playing(false);
      themes.disconnect();
      resizes.disconnect();
      system.removeEventListener("change", retheme);
      el.replaceChildren();
    },
  };
}

/** Mount every inspector of a static page that is not mounted yet: each <script class="mi-trace"> follows its place. */
export function mountAll() {
  for (const script of document.querySelectorAll("script.mi-trace:not([data-mounted])")) {
    script.dataset.mounted = "";
    const { trace, step, slot } = JSON.parse(script.textContent);
    mount(script.previousElementSibling, trace, { step, slot });
  }
}

function render({ model, el }) {
  let inspector = null;
  const now = () => ({ step: model.get("step"), slot: model.get("slot") });
  const onChange = ({ step, slot }) => { model.set("step", step); model.set("slot", slot); model.save_changes(); };
  const start = () => { inspector?.destroy(); inspector = mount(el, model.get("trace"), { ...now(), onChange }); };
  const follow = () => inspector.show(now());
  start();
  model.on("change:trace", start);
  model.on("change:step", follow);
  model.on("change:slot", follow);
  return () => {
    model.off("change:trace", start);
    model.off("change:step", follow);
    model.off("change:slot", follow);
    inspector.destroy();
  };
}

export default { render };
