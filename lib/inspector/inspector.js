// The memory inspector: shows a trace (lib/inspector/trace.py), what a network did to its memory over one episode.
// `mount` puts it on a page; the default export is the same for a live notebook (anywidget). Steps, slots and labels
// count from 0, as in the trace.

const CLASS_COLOURS = ["#cc6677", "#ddcc77", "#44aa99", "#882255", "#88ccee", "#999933", "#aa4499", "#117733", "#332288", "#bbbbbb"];
const TYPES = { uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array };
const PLAY = "M3 1.5v11l9-5.5z", PAUSE = "M3 2h3v10H3zM8 2h3v10H8z";

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const range = (count) => Array.from({ length: count }, (_, i) => i);
const number = (value, digits = 4) => String(Number(value.toPrecision(digits))).replace("-", "−");
const percent = (value) => `${(100 * value).toFixed(value > 0.9995 || value < 0.0005 ? 0 : 1)} %`;
const ordinal = (n) => n + ((n % 100 > 10 && n % 100 < 14) ? "th" : ["th", "st", "nd", "rd"][n % 10] || "th");
const classColour = (label) => CLASS_COLOURS[label % CLASS_COLOURS.length];

/** An element with properties (`class`, `on…`, `aria-…`, styles as an object) and children. */
function node(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "style") for (const [name, setting] of Object.entries(value)) element.style.setProperty(name, setting);
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
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
  const T = shapes.labels[0], C = shapes.probabilities[1], S = shapes.images[1];
  const [, N, M] = shapes.memory ?? [T, 0, 0];
  const R = shapes.read_weights?.[1] ?? 0, W = shapes.write_weights?.[1] ?? 0;
  const weight = (name, heads) => (t, head, slot) => arrays[name][(t * heads + head) * N + slot];
  const summed = (name, heads) => {
    const one = weight(name, heads);
    return range(T).map((t) => range(N).map((slot) => range(heads).reduce((sum, head) => sum + one(t, head, slot), 0)));
  };
  const readMass = summed("read_weights", R), writeMass = summed("write_weights", W);
  const writer = range(T).map(() => Array(N).fill(-1)); // the last step that wrote into a slot, -1 if none did
  range(T).forEach((t) => range(N).forEach((slot) => {
    const now = W > 0 && writeMass[t][slot] >= payload.write_threshold;
    writer[t][slot] = now ? t : t > 0 ? writer[t - 1][slot] : -1;
  }));
  const answers = range(T).map((t) => {
    const row = arrays.probabilities.subarray(t * C, (t + 1) * C);
    return row.indexOf(Math.max(...row));
  });
  // How often a slot is read compared with an even share of 1/N a head.
  const share = (t, slot) => (R ? (readMass[t][slot] * N) / R : 0);
  const largest = (values) => values.reduce((a, b) => Math.max(a, b), 0) || 1;
  const absolute = (arrays.memory ?? new Float64Array()).map(Math.abs).sort();
  return {
    ...payload, ...arrays, T, C, S, N, M, R, W, answers, readMass, writeMass, writer, share, largest,
    value: (t, slot, column) => arrays.memory[(t * N + slot) * M + column],
    read: weight("read_weights", R), write: weight("write_weights", W),
    used: (t, slot) => arrays.usage[t * N + slot], least: (t, slot) => arrays.least_used[t * N + slot] > 0,
    right: (t) => answers[t] === arrays.labels[t],
    memoryScale: absolute[Math.floor(0.995 * absolute.length)] || 1,
    shareScale: largest(range(T).flatMap((t) => range(N).map((slot) => (writer[t][slot] === t ? 1 : share(t, slot))))),
    writeScale: largest(writeMass.flat()),
    mostRead: (t, count) => range(N).filter((slot) => writer[t][slot] >= 0 && writer[t][slot] < t)
      .sort((a, b) => readMass[t][b] - readMass[t][a]).slice(0, R ? count : 0),
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
function heatMap(context, rows, columns, colour, { x, y, width, height }) {
  const cells = document.createElement("canvas");
  cells.width = columns;
  cells.height = rows;
  const image = new ImageData(columns, rows);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) image.data.set([...colour(row, column), 255], 4 * (row * columns + column));
  }
  cells.getContext("2d").putImageData(image, 0, 0);
  context.drawImage(cells, x, y, width, height);
}

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.trim().slice(i, i + 2), 16));
const css = (channels) => `rgb(${channels.join(" ")})`;
const mix = (from, to, part) => from.map((channel, i) => Math.round(channel + (to[i] - channel) * clamp(part, 0, 1)));

/** Show `payload`, a trace as JSON, in `el`. Options: step, slot, onChange({ step, slot }). Returns { show, destroy }. */
export function mount(el, payload, { step = 0, slot = null, onChange = () => {} } = {}) {
  const trace = unpack(payload);
  const { T, C, S, N, M, R, W, labels } = trace;
  const state = { step: clamp(step, 0, T - 1), slot: slot !== null && slot < N ? slot : null, row: slot ?? 0, column: 0 };
  let timer = null, layout = null, colours = {};

  // ---- Pieces of the page ---------------------------------------------------------------------------------------
  const thumbnail = (t) => {
    const canvas = node("canvas", { class: "mi-thumb", width: S, height: S, "aria-hidden": "true" });
    const image = new ImageData(S, S); // ink is opacity: the style sheet turns it white in a dark theme
    for (let i = 0; i < S * S; i++) image.data[4 * i + 3] = trace.images[t * S * S + i];
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  };
  const chip = (label) => {
    const colour = classColour(label), [r, g, b] = rgb(colour);
    return node("span", { class: "mi-chip", style: { background: colour, color: 299 * r + 587 * g + 114 * b > 115000 ? "#000" : "#fff" } }, String(label));
  };
  const verdict = (t) => node("span", { class: trace.right(t) ? "mi-right" : "mi-wrong" }, trace.right(t) ? "✓" : "✗");
  const card = (title, ...children) => node("div", { class: "mi-card" }, node("p", { class: "mi-label" }, title), ...children);
  const slotButton = (i, ...children) => node("button", { type: "button", class: "mi-item", onclick: () => show({ slot: i }) }, ...children);
  const stepButton = (t, ...children) => node("button", { type: "button", class: "mi-item", onclick: () => show({ step: t }) }, ...children);

  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  icon.setAttribute("viewBox", "0 0 14 14");
  icon.setAttribute("aria-hidden", "true");
  icon.append(document.createElementNS(icon.namespaceURI, "path"));
  const play = node("button", { type: "button", class: "mi-play", onclick: () => playing(timer === null) }, icon);
  const slider = node("input", { type: "range", min: 0, max: T - 1, step: 1, "aria-label": "Step", oninput: () => show({ step: Number(slider.value) }) });
  const clock = node("span", { class: "mi-clock" });
  const strip = node("div", { class: "mi-strip", role: "group", "aria-label": "The images of the episode" });
  const frames = range(T).map((t) => node("button", { type: "button", class: "mi-frame", style: { "--mi-class": classColour(labels[t]) }, onclick: () => show({ step: t }),
    "aria-label": `step ${t}, class ${labels[t]}, answered ${trace.answers[t]}, ${trace.right(t) ? "right" : "wrong"}` },
    thumbnail(t), node("span", { class: "mi-frame-foot", "aria-hidden": "true" }, String(labels[t]), verdict(t))));
  strip.append(...frames);
  const story = node("p", { class: "mi-story", "aria-live": "polite" });
  const now = node("div", { class: "mi-now" });
  const grid = node("canvas", { class: "mi-grid", tabindex: 0, role: "application", "aria-label":
    `Memory: ${N} slots by ${M} columns, then weights and usage. Arrow keys move to a cell and read its value, Enter picks its slot.` });
  const episode = node("canvas", { class: "mi-episode", role: "img", "aria-label":
    "Which slot was written and read at which step. The slider and the memory give the same by keyboard." });
  const reading = node("output", { class: "mi-reading" }, "Point at a cell, or move with the arrow keys, to read its exact value.");
  const legend = node("div", { class: "mi-legend" });
  const board = node("div", { class: "mi-board" }, grid, episode);
  const history = node("div", { class: "mi-history" });
  const root = node("div", { class: "mi", role: "group", tabindex: -1, "aria-label": `Memory inspector: ${trace.title}`, "data-lm-suppress-shortcuts": "true" },
    node("div", { class: "mi-head" }, node("p", { class: "mi-title" }, trace.title), node("p", { class: "mi-note" }, trace.note)),
    node("div", { class: "mi-controls" }, play, slider, clock), strip, story, now,
    ...(N ? [board, reading, legend, history] : [node("p", { class: "mi-note" }, "This learner has no memory to show.")]));
  root.classList.add("tex2jax_ignore", "mathjax_ignore");
  el.replaceChildren(root);

  // ---- What is said about a step --------------------------------------------------------------------------------
  const writtenBy = (t) => {
    const told = t - trace.label_delay;
    return [thumbnail(t), node("span", {}, `t = ${t} `, chip(labels[t]), ...(trace.label_delay && told >= 0 ? [` told y${told} = `, chip(labels[told])] : []))];
  };
  const times = (t, i) => `${number(trace.share(t, i), 3)} ×`;

  function describe() {
    const t = state.step, label = labels[t], answer = trace.answers[t];
    const sure = percent(trace.probabilities[t * C + answer]);
    const [top] = trace.mostRead(t, 1), written = trace.mostWritten(t);
    return [
      `t = ${t}: the ${ordinal(trace.instance[t])} image of class ${label}.`,
      `The network answers ${answer} (${sure}), ${trace.right(t) ? "right" : `wrong: it is ${label}`}.`,
      top === undefined ? "" : `Of what it wrote before, it reads slot ${top} most (${times(t, top)} an even share), written at t = ${trace.writer[t][top]} with an image of class ${labels[trace.writer[t][top]]}.`,
      W === 0 ? "" : written.length ? `It writes to slot${written.length > 1 ? "s" : ""} ${written.slice(0, 8).join(", ")}.` : "It writes to no slot in particular.",
    ].filter(Boolean).join(" ");
  }

  function drawNow() {
    const t = state.step, told = t - trace.label_delay, answer = trace.answers[t];
    const shown = range(C).sort((a, b) => trace.probabilities[t * C + b] - trace.probabilities[t * C + a]).slice(0, 8);
    if (!shown.includes(labels[t])) shown[7] = labels[t];
    const bars = shown.sort((a, b) => a - b).map((c) => {
      const p = trace.probabilities[t * C + c];
      return node("div", { class: "mi-bar" }, chip(c), node("span", { class: "mi-track" }, node("span", { style: { width: `${100 * p}%`, background: classColour(c) } })),
        node("span", { class: "mi-percent" }, percent(p)), node("span", { class: "mi-true" }, c === labels[t] ? "◂ true" : ""));
    });
    const input = node("div", { class: "mi-input" }, thumbnail(t), node("div", {},
      node("p", {}, "class ", chip(labels[t])), node("p", {}, `${ordinal(trace.instance[t])} image of it`),
      node("p", {}, ...(trace.label_delay && told >= 0 ? [`told y${told} = `, chip(labels[told])] : trace.label_delay ? ["told no label yet"] : []))));
    const reads = trace.mostRead(t, 3).map((i) => slotButton(i, node("b", {}, `slot ${i}`), node("span", {}, times(t, i)), ...writtenBy(trace.writer[t][i])));
    const writes = trace.mostWritten(t).slice(0, 6).map((i) => slotButton(i, node("b", {}, `slot ${i}`), node("span", {}, number(trace.writeMass[t][i], 2))));
    now.replaceChildren(
      card(`Input at t = ${t}`, input),
      card("Answer", node("p", { class: "mi-verdict" }, verdict(t), trace.right(t) ? ` right: ${answer}` : ` wrong: ${answer}, it is ${labels[t]}`), ...bars),
      ...(N ? [node("div", { class: "mi-card mi-wide" },
        node("p", { class: "mi-label mi-is-read" }, "● Reads most, of what it wrote before"), node("div", { class: "mi-items mi-rows" }, ...(reads.length ? reads : ["nothing yet"])),
        node("p", { class: "mi-label mi-is-write" }, "▸ Writes to"), node("div", { class: "mi-items" }, ...(writes.length ? writes : ["no slot in particular"])))] : []));
  }

  function drawHistory() {
    const i = state.slot;
    if (i === null) {
      history.replaceChildren(node("p", { class: "mi-hint" }, "Pick a slot (click a row, or Enter in the memory) to see when it was written, by which image, and when it was read."));
      return;
    }
    const written = range(T).filter((t) => trace.writer[t][i] === t);
    const later = range(T).filter((t) => trace.writer[t][i] >= 0 && trace.writer[t][i] < t).sort((a, b) => trace.share(b, i) - trace.share(a, i)).slice(0, 6);
    const writes = written.map((t) => stepButton(t, ...writtenBy(t), node("span", {}, `weight ${number(trace.writeMass[t][i], 2)}`)));
    const reads = later.map((t) => stepButton(t, thumbnail(t), node("span", {}, `t = ${t} `, chip(labels[t]), " ", verdict(t)), node("span", {}, times(t, i))));
    const life = node("canvas", { class: "mi-life", role: "img", "aria-label": `The content of slot ${i} at each step` });
    history.replaceChildren(
      node("div", { class: "mi-card mi-wide" }, node("p", { class: "mi-label" }, `Slot ${i}: its content over the episode`), life),
      node("div", { class: "mi-card" }, node("p", { class: "mi-label mi-is-write" }, `▸ Slot ${i} was written`), node("div", { class: "mi-items" }, ...(writes.length ? writes : ["never"]))),
      ...(R ? [node("div", { class: "mi-card" }, node("p", { class: "mi-label mi-is-read" }, `● and later read most`), node("div", { class: "mi-items" }, ...(reads.length ? reads : ["never"])))] : []));
    const width = Math.max(life.parentElement.clientWidth - 26, 120), cell = width / T, height = clamp(2 * M, 30, 90);
    const context = prepare(life, width, height + 14);
    heatMap(context, M, T, (column, t) => memoryColour(trace.value(t, i, column)), { x: 0, y: 12, width, height });
    context.fillStyle = css(colours.write);
    for (const t of written) triangle(context, t * cell + cell / 2, 10, 0);
    context.strokeStyle = css(colours.text);
    context.lineWidth = 1.5;
    context.strokeRect(state.step * cell, 11.5, cell, height + 1);
  }

  // ---- The memory and the episode, on canvas --------------------------------------------------------------------
  const memoryColour = (value) => mix(colours.zero, value < 0 ? colours.minus : colours.plus, Math.abs(value) / trace.memoryScale);
  const triangle = (context, x, y, side) => { // pointing down (side 0) or right
    context.beginPath();
    if (side) context.moveTo(x, y - 3.5), context.lineTo(x + 6, y), context.lineTo(x, y + 3.5);
    else context.moveTo(x - 4, y - 6), context.lineTo(x + 4, y - 6), context.lineTo(x, y);
    context.fill();
  };
  const stepScale = (mass) => trace.largest(mass.flat());

  /** Columns of the grid from left to right: the memory, then the weights of each head, usage and the least-used marks. */
  function groups() {
    const t = state.step, row = (weight, heads) => range(heads).map((head) => range(N).map((i) => weight(t, head, i)));
    const reads = R ? stepScale(row(trace.read, R)) : 1, writes = W ? stepScale(row(trace.write, W)) : 1;
    const usage = trace.usage ? trace.largest(range(N).map((i) => trace.used(t, i))) : 1;
    return [
      { name: "memory", count: M, value: (i, j) => trace.value(t, i, j), colour: (i, j) => memoryColour(trace.value(t, i, j)), says: (j) => `memory column ${j}` },
      R && { name: "read", count: R, scale: reads, value: (i, h) => trace.read(t, h, i), colour: (i, h) => mix(colours.empty, colours.read, trace.read(t, h, i) / reads), says: (h) => `read head ${h}` },
      W && { name: "write", count: W, scale: writes, value: (i, h) => trace.write(t, h, i), colour: (i, h) => mix(colours.empty, colours.write, trace.write(t, h, i) / writes), says: (h) => `write head ${h}` },
      trace.usage && { name: "usage", count: 1, scale: usage, value: (i) => trace.used(t, i), says: () => "usage" },
      trace.least_used && { name: "next", count: 1, value: (i) => Number(trace.least(t, i)), says: () => "least used, next to be written" },
    ].filter(Boolean);
  }

  function measure() {
    const width = board.clientWidth, ratio = window.devicePixelRatio || 1, beside = width >= 620;
    const snap = (size) => Math.max(Math.floor(size * ratio) / ratio, 1 / ratio);
    const row = N > 384 ? 384 / N : snap(clamp((width > 900 ? 512 : 400) / N, 0, 18));
    const gridWidth = beside ? Math.floor(width * 0.5) : width, episodeWidth = beside ? width - gridWidth - 16 : width;
    const roomy = gridWidth > 380, gap = roomy ? 12 : 7, head = roomy ? 9 : 6.5, left = 38, top = 34;
    const widths = { read: Math.max(R * head, 28), write: Math.max(W * head, 30), usage: 34, next: 24 };
    const rest = groups().slice(1).reduce((sum, group) => sum + widths[group.name] + gap, 0);
    widths.memory = snap(Math.min((gridWidth - left - rest) / M, 12)) * M;
    let x = left;
    const columns = groups().map(({ name }) => { const place = { name, x, width: widths[name] }; x += widths[name] + gap; return place; });
    layout = { row, top, left, columns, gridWidth, episodeWidth, height: N * row, beside, cell: snap((episodeWidth - left - 6) / T) };
  }

  function slotAxis(context, right) {
    const every = [1, 2, 4, 8, 16, 32, 64, 128, 256].find((count) => count * layout.row >= 26) ?? 512;
    context.textAlign = "right";
    context.textBaseline = "middle";
    range(N).filter((i) => i % every === 0 || i === state.slot).forEach((i) => {
      const close = state.slot !== null && i !== state.slot && Math.abs(i - state.slot) * layout.row < 13;
      context.fillStyle = css(i === state.slot ? colours.text : colours.muted);
      if (!close) context.fillText(String(i), layout.left - 14, layout.top + (i + 0.5) * layout.row);
    });
    context.strokeStyle = css(colours.text);
    context.lineWidth = 1.25;
    if (state.slot !== null) context.strokeRect(layout.left - 11, layout.top + state.slot * layout.row - 1.5, right - layout.left + 12, layout.row + 3);
  }

  function drawGrid() {
    const { row, top, left, columns, gridWidth, height } = layout, t = state.step;
    const context = prepare(grid, gridWidth, top + height + 6), shown = groups();
    shown.forEach((group, index) => {
      const { x, width } = columns[index];
      context.fillStyle = css(colours.muted);
      context.textAlign = "center";
      context.textBaseline = "alphabetic";
      context.fillText(group.name === "memory" ? `memory after t = ${t}` : group.name, x + width / 2, top - 10);
      if (group.colour) heatMap(context, N, group.count, group.colour, { x, y: top, width, height });
      else range(N).forEach((i) => {
        const y = top + i * row;
        if (group.name === "usage") {
          context.fillStyle = css(colours.empty);
          context.fillRect(x, y, width, row);
          context.fillStyle = css(colours.muted);
          context.fillRect(x, y, (width * group.value(i)) / group.scale, Math.max(row - (row > 3 ? 1 : 0.5), 0.5));
        } else if (group.value(i)) {
          context.fillStyle = css(colours.text);
          triangle(context, x + width / 2 - 3, y + row / 2, 1);
        }
      });
    });
    for (const i of trace.mostRead(t, 3)) {
      context.fillStyle = css(colours.read);
      context.beginPath();
      context.arc(left - 6, top + (i + 0.5) * row, 3, 0, 7);
      context.fill();
    }
    context.fillStyle = css(colours.write);
    for (const i of trace.mostWritten(t)) triangle(context, left - 9, top + (i + 0.5) * row, 1);
    slotAxis(context, columns.at(-1).x + columns.at(-1).width);
    const cell = cellAt(state.column);
    if (document.activeElement === grid) {
      context.strokeStyle = css(colours.focus);
      context.lineWidth = 2;
      context.strokeRect(cell.x - 1.5, top + state.row * row - 1.5, cell.width + 3, row + 3);
    }
  }

  function drawEpisode() {
    const { row, top, left, cell, height, episodeWidth } = layout, t = state.step, width = cell * T;
    const context = prepare(episode, episodeWidth, top + height + 6);
    heatMap(context, N, T, (i, at) => trace.writer[at][i] === at
      ? mix(colours.empty, colours.write, 0.35 + (0.65 * trace.writeMass[at][i]) / trace.writeScale)
      : mix(colours.empty, colours.read, (trace.share(at, i) - 1) / (trace.shareScale - 1 || 1)), { x: left, y: top, width, height });
    for (let at = 0; at < T; at++) {
      context.globalAlpha = labels[at] === labels[t] ? 1 : 0.3;
      context.fillStyle = classColour(labels[at]);
      const tall = labels[at] === labels[t] ? 8 : 4;
      context.fillRect(left + at * cell, top - 1 - tall, Math.max(cell - 1, 1), tall);
    }
    context.globalAlpha = 1;
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    const every = [1, 2, 5, 10, 20, 50, 100].find((count) => count * cell >= 26) ?? 200;
    range(T).filter((at) => at === t || (at % every === 0 && Math.abs(at - t) * cell > 26)).forEach((at) => {
      context.fillStyle = css(at === t ? colours.text : colours.muted);
      context.fillText(at === t ? `t = ${at}` : String(at), clamp(left + (at + 0.5) * cell, left + 4, left + width - 10), top - 13);
    });
    slotAxis(context, left + width);
    context.strokeStyle = css(colours.text);
    context.lineWidth = 1.5;
    context.strokeRect(left + t * cell - 1, top - 10, cell + 2, height + 12);
  }

  function drawLegend() {
    const shown = Object.fromEntries(groups().map((group) => [group.name, group]));
    const key = (kind, ...text) => node("span", { class: "mi-key" }, node("span", { class: `mi-swatch mi-swatch-${kind}`, "aria-hidden": "true" }), ...text);
    legend.replaceChildren(
      key("memory", `memory −${number(trace.memoryScale, 2)} to ${number(trace.memoryScale, 2)}`),
      ...(R ? [key("read", `● read 0 to ${number(shown.read.scale, 3)}, an even share is ${number(1 / N, 3)}`)] : []),
      ...(W ? [key("write", `▸ write 0 to ${number(shown.write.scale, 3)}`)] : []),
      ...(shown.usage ? [key("usage", `usage 0 to ${number(shown.usage.scale, 3)}`)] : []),
      ...(shown.next ? [node("span", { class: "mi-key" }, "next ▸ least used, written next")] : []),
      ...(R ? [node("span", { class: "mi-key" }, "On the right: ", node("span", { class: "mi-is-write" }, "written"), " or ", node("span", { class: "mi-is-read" }, "read"), ` more than an even share, up to ${number(trace.shareScale, 3)} ×`)] : []));
  }

  // ---- Pointing and keys ----------------------------------------------------------------------------------------
  const cellCount = () => groups().reduce((sum, group) => sum + group.count, 0);
  function cellAt(column) {
    const shown = groups();
    let index = 0;
    while (column >= shown[index].count) column -= shown[index++].count;
    const { x, width } = layout.columns[index], cell = width / shown[index].count;
    return { group: shown[index], column, x: x + column * cell, width: cell };
  }
  function readCell() {
    const { group, column } = cellAt(state.column), value = group.value(state.row, column);
    const even = group.name === "read" ? ` (${number(value * N, 3)} × an even share)` : "";
    reading.textContent = `t = ${state.step}, slot ${state.row}, ${group.says(column)}: ${group.name === "next" ? (value ? "yes" : "no") : number(value)}${even}`;
  }
  const rowAt = (event, canvas) => Math.floor((event.clientY - canvas.getBoundingClientRect().top - layout.top) / layout.row);
  const xAt = (event, canvas) => event.clientX - canvas.getBoundingClientRect().left;
  grid.addEventListener("pointermove", (event) => {
    const row = rowAt(event, grid), x = xAt(event, grid);
    const column = range(cellCount()).find((c) => { const cell = cellAt(c); return x >= cell.x && x < cell.x + cell.width; });
    if (column === undefined || row < 0 || row >= N) return;
    Object.assign(state, { row, column });
    readCell();
  });
  grid.addEventListener("click", (event) => { const row = rowAt(event, grid); if (row >= 0 && row < N) show({ slot: row }); });
  for (const kind of ["focus", "blur"]) grid.addEventListener(kind, () => drawGrid());
  const stepAt = (event) => clamp(Math.floor((xAt(event, episode) - layout.left) / layout.cell), 0, T - 1);
  episode.addEventListener("pointermove", (event) => {
    const t = stepAt(event), i = rowAt(event, episode);
    if (i < 0 || i >= N) return;
    reading.textContent = `t = ${t}, slot ${i}: ` + [W && `written ${number(trace.writeMass[t][i], 3)}`, R && `read ${number(trace.readMass[t][i], 3)} (${times(t, i)} an even share)`].filter(Boolean).join(", ");
  });
  episode.addEventListener("click", (event) => { const row = rowAt(event, episode); show({ step: stepAt(event), slot: row >= 0 && row < N ? row : state.slot }); });

  const cursor = (rows, columns) => () => {
    Object.assign(state, { row: clamp(state.row + rows, 0, N - 1), column: clamp(state.column + columns, 0, cellCount() - 1) });
    drawGrid();
    readCell();
  };
  const stepKeys = { ArrowLeft: () => show({ step: state.step - 1 }), ArrowRight: () => show({ step: state.step + 1 }), Home: () => show({ step: 0 }),
    End: () => show({ step: T - 1 }), " ": () => playing(timer === null), Escape: () => show({ slot: null }) };
  const gridKeys = { ArrowLeft: cursor(0, -1), ArrowRight: cursor(0, 1), ArrowUp: cursor(-1, 0), ArrowDown: cursor(1, 0),
    PageUp: cursor(-10, 0), PageDown: cursor(10, 0), Enter: () => show({ slot: state.row }) };
  root.addEventListener("keydown", (event) => {
    const action = (event.target === grid && gridKeys[event.key]) || stepKeys[event.key];
    const presses = event.key === " " && event.target.tagName === "BUTTON"; // the browser's own way to press it
    if (!action || presses || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    action();
    if (event.target.classList.contains("mi-frame")) frames[state.step].focus();
  });

  // ---- Keeping all of it up to date -----------------------------------------------------------------------------
  function playing(on) {
    clearInterval(timer);
    timer = null;
    if (on) {
      if (state.step === T - 1) show({ step: 0 });
      timer = setInterval(() => (state.step < T - 1 ? show({ step: state.step + 1 }) : playing(false)), 900);
    }
    story.setAttribute("aria-live", on ? "off" : "polite");
    play.setAttribute("aria-label", on ? "Pause" : "Play");
    icon.firstChild.setAttribute("d", on ? PAUSE : PLAY);
  }

  function draw() {
    if (!N || !board.clientWidth) return;
    measure();
    drawGrid();
    drawEpisode();
    drawLegend();
    drawHistory();
  }

  function update() {
    const t = state.step;
    root.dataset.step = t;
    root.dataset.slot = state.slot ?? "";
    slider.value = t;
    slider.setAttribute("aria-valuetext", `step ${t} of ${T - 1}, class ${labels[t]}, answered ${trace.right(t) ? "right" : "wrong"}`);
    clock.textContent = `t = ${t} of ${T - 1}`;
    story.textContent = describe();
    frames.forEach((frame, at) => {
      frame.tabIndex = at === t ? 0 : -1;
      frame.classList.toggle("mi-same", labels[at] === labels[t]);
      frame.classList.toggle("mi-later", at > t);
      if (at === t) frame.setAttribute("aria-current", "step");
      else frame.removeAttribute("aria-current");
    });
    drawNow();
    draw();
  }

  function show(change) {
    const next = { step: state.step, slot: state.slot, ...change };
    next.step = clamp(next.step, 0, T - 1);
    if (next.slot !== null && !(next.slot >= 0 && next.slot < N)) next.slot = null;
    if (next.step === state.step && next.slot === state.slot) return;
    Object.assign(state, next);
    update();
    onChange({ step: state.step, slot: state.slot });
  }

  function retheme() {
    root.dataset.theme = darkTheme() ? "dark" : "light";
    const style = getComputedStyle(root);
    for (const name of ["text", "muted", "empty", "zero", "minus", "plus", "read", "write", "focus"]) colours[name] = rgb(style.getPropertyValue(`--mi-${name}`));
    draw();
  }

  const themes = new MutationObserver(retheme);
  for (const page of [document.documentElement, document.body]) themes.observe(page, { attributes: true, attributeFilter: ["data-theme", "theme", "data-jp-theme-light", "data-vscode-theme-kind"] });
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", retheme);
  const resizes = new ResizeObserver(draw);
  retheme();
  playing(false);
  update();
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

/** Mount every inspector of a static page that is not mounted yet: a <script class="mi-trace"> after its place. */
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
  const follow = () => inspector.show(now());
  const start = () => {
    inspector?.destroy();
    const onChange = ({ step, slot }) => { model.set("step", step); model.set("slot", slot); model.save_changes(); };
    inspector = mount(el, model.get("trace"), { ...now(), onChange });
  };
  start();
  model.on("change:trace", start);
  model.on("change:step change:slot", follow);
  return () => { model.off("change:trace", start); model.off("change:step change:slot", follow); inspector.destroy(); };
}

export default { render };
