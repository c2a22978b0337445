// The viewer of an episodic memory: a softmax layer fitted to the neighbours of one query (lib/inspector/episodic.py).
// `mount` puts it on a page; the default export does the same in a live notebook (anywidget). The fit is computed here,
// as lib/methods/mbpa.py does it: a page needs no kernel. Positions, classes and steps count from 0, as in the trace.

import {
  clamp, darkTheme, fixed, folded, keepDrawn, lineSample, listbox, MARKS, mountEach, node, player, range, renderer, shape, slider, span, speaker, sum,
  unpackArrays,
} from "./page.js";

const LONGEST = 30, MOST = 50, SHOWN = 10; // of T, of K, of the classes that are listed

// ---- The fit ------------------------------------------------------------------------------------------------------

/** A trace's arrays as rows of numbers. A layer with biases sees one more input, which is 1. Exported for the tests. */
export function unpack(payload) {
  const { arrays, shapes } = unpackArrays(payload), [N, D] = shapes.keys, C = payload.names.length, one = arrays.bias ? [1] : [];
  const rows = (name, ...more) => range(shapes[name][0]).map((i) => Float64Array.from([...arrays[name].subarray(i * D, (i + 1) * D), ...more]));
  const theta = Float64Array.from(range(C).flatMap((c) => [...arrays.weight.subarray(c * D, (c + 1) * D), ...(arrays.bias ? [arrays.bias[c]] : [])]));
  const pictures = (name) => {
    const [count, height, width, colours = 1] = shapes[name], size = height * width * colours;
    return range(count).map((i) => ({ height, width, colours, pixels: arrays[name].subarray(i * size, (i + 1) * size) }));
  };
  return { ...payload, N, D, C, Q: shapes.queries[0], theta, keys: rows("keys", ...one), queries: rows("queries", ...one),
    values: [...arrays.values], truth: [...arrays.truth], images: pictures("images"), queryImages: pictures("query_images"), known: new Set(payload.known) };
}

/** C of a query: its nearest keys, the nearest first, with their weights, 1 / (ε + ‖h - q‖²) before normalising. */
export function contextOf(trace, query, { neighbours, epsilon }, without = []) {
  const q = trace.queries[query], gone = new Set(without);
  const found = range(trace.N).filter((i) => !gone.has(i))
    .map((position) => ({ position, label: trace.values[position], distance: sum([...trace.keys[position]].map((value, j) => (value - q[j]) ** 2)) }))
    .sort((a, b) => a.distance - b.distance).slice(0, neighbours);
  const total = sum(found.map(({ distance }) => 1 / (epsilon + distance)));
  return found.map((each) => ({ ...each, weight: 1 / (epsilon + each.distance) / total }));
}

/** Class probabilities of an input by θ, one row a class. */
function probabilities(theta, input, C) {
  const logits = new Float64Array(C), width = input.length;
  let highest = -Infinity, total = 0;
  for (let c = 0; c < C; c++) {
    for (let j = 0; j < width; j++) logits[c] += theta[c * width + j] * input[j];
    highest = Math.max(highest, logits[c]);
  }
  for (let c = 0; c < C; c++) total += logits[c] = Math.exp(logits[c] - highest);
  for (let c = 0; c < C; c++) logits[c] /= total;
  return logits;
}

/** What the optimizer takes off θ in the step (from 1) with this gradient; `kept` is its state. */
function change(gradient, kept, step, { optimizer, rate, decay, square }) {
  if (optimizer === "sgd") return gradient.map((g) => rate * g);
  if (optimizer === "rmsprop") {
    kept.square ??= new Float64Array(gradient.length).fill(square);
    return gradient.map((g, i) => (rate * g) / (Math.sqrt(kept.square[i] = decay * kept.square[i] + (1 - decay) * g * g) + 1e-8));
  }
  kept.mean ??= new Float64Array(gradient.length);
  kept.square ??= new Float64Array(gradient.length);
  return gradient.map((g, i) => {
    kept.mean[i] = 0.9 * kept.mean[i] + 0.1 * g;
    kept.square[i] = 0.999 * kept.square[i] + 0.001 * g * g;
    return (rate * (kept.mean[i] / (1 - 0.9 ** step))) / (Math.sqrt(kept.square[i] / (1 - 0.999 ** step)) + 1e-8);
  });
}

/** Fit θ to a query's context: { context, vote, steps }, where steps[t] has the query's p, each neighbour's p of its own
    class, the loss and how far θ moved, after t steps (equation 4 with the signs of lib/methods/mbpa.py). */
export function fit(trace, query, settings, without = []) {
  const { C, theta: start } = trace, context = contextOf(trace, query, settings, without), q = trace.queries[query], width = q.length;
  const kept = {}, steps = [], vote = new Float64Array(C);
  for (const { label, weight } of context) vote[label] += weight;
  let theta = start;
  for (let step = 0; ; step++) {
    const gradient = new Float64Array(theta.length), own = [];
    let loss = 0;
    for (const { position, label, weight } of context) {
      const input = trace.keys[position], error = probabilities(theta, input, C);
      own.push(error[label]);
      loss -= weight * Math.log(error[label]);
      error[label] -= 1;
      for (let c = 0; c < C; c++) for (let j = 0; j < width; j++) gradient[c * width + j] += weight * error[c] * input[j];
    }
    steps.push({ p: probabilities(theta, q, C), own, loss, moved: Math.hypot(...theta.map((value, i) => value - start[i])) });
    if (step === settings.steps) return { context, vote, steps };
    const taken = change(gradient, kept, step + 1, settings);
    theta = theta.map((value, i) => value - taken[i] - settings.prior * (value - start[i]));
  }
}

// ---- In words -----------------------------------------------------------------------------------------------------

const percent = (value) => `${value > 0 && value < 0.0005 ? "< 0.1" : (100 * value).toFixed(1)} %`;
const top = (p) => p.indexOf(Math.max(...p));
const short = (value) => String(Number(value.toPrecision(2)));
const count = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

/** A step in words. Exported for the tests. */
export function describe(trace, { query, step }, { context, steps }) {
  const y = trace.truth[query], name = (label) => `«${trace.names[label]}»`, { p, moved } = steps[step], before = steps[0].p;
  const own = context.filter(({ label }) => label === y).length, right = (label) => (label === y ? ", which is right" : "");
  const first = `The query is of class ${name(y)}${trace.known.size ? (trace.known.has(y) ? ", which the network was trained on" : ", which the network does not know") : ""}. ` +
    `The network alone gives it ${percent(before[y])} and says ${name(top(before))}${right(top(before))}. `;
  const memory = `${own} of the ${count(context.length, "neighbour")} ${own === 1 ? "is" : "are"} of its class. `;
  if (step === 0) return `${first}${memory}No step is done yet.`;
  return `${first}${memory}After ${count(step, "step")} it has ${percent(p[y])}, and the answer is ${name(top(p))}${right(top(p))}. θ has moved by ${fixed(moved, 3)}.`;
}

const DOTS = { true: "circle", first: "square", last: "diamond", moved: "circle" }; // a mark for each line of a chart

/** Draw lines over the steps into an <svg>: [{ kind, values }], from 0 to `high`. Returns the step at a place. */
function drawChart(svg, { lines, cursor, high }) {
  const T = lines[0].values.length - 1, width = Math.max(svg.clientWidth, 200), height = 150, left = 40, right = width - 12, above = 10, bottom = height - 24;
  const x = (t) => left + ((right - left) * (T ? t / T : 0.5)), y = (value) => bottom - ((bottom - above) * value) / (high || 1);
  const ticks = range(5).map((i) => (high * i) / 4), every = [1, 2, 5, 10].find((n) => (n * (right - left)) / Math.max(T, 1) > 24) ?? 10;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(
    ...ticks.map((value) => shape("path", { class: "em-grid", d: `M${left} ${y(value)}H${right}` })),
    ...ticks.map((value) => shape("text", { x: left - 5, y: y(value) + 3.5, "text-anchor": "end" }, fixed(value, high > 4 ? 1 : 2))),
    ...range(T + 1).filter((t) => t % every === 0).map((t) => shape("text", { x: x(t), y: height - 8, "text-anchor": "middle" }, String(t))),
    shape("path", { class: "em-cursor", d: `M${x(cursor)} ${above}V${bottom}` }),
    ...lines.map(({ kind, values }) => shape("path", { class: `em-line em-line-${kind}`, d: `M${values.map((value, t) => `${x(t).toFixed(1)} ${y(value).toFixed(1)}`).join("L")}` })),
    ...lines.map(({ kind, values }) => shape("path", { class: `em-dot-${kind}`, d: MARKS[DOTS[kind]], transform: `translate(${x(cursor)} ${y(values[cursor])}) scale(0.8)` })));
  return (clientX) => clamp(Math.round(((clientX - svg.getBoundingClientRect().left - left) * T) / (right - left)), 0, T);
}

/** A picture: ink on white paper, or colours as they are. */
function picture({ height, width, colours, pixels }, size) {
  const canvas = node("canvas", { class: "em-picture", width, height, "aria-hidden": "true", style: { width: `${size}px`, height: `${size}px` } });
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  range(width * height).forEach((i) => image.data.set(colours === 3 ? [...pixels.subarray(3 * i, 3 * i + 3), 255] : [...Array(3).fill(255 - pixels[i]), 255], 4 * i));
  context.putImageData(image, 0, 0);
  return canvas;
}

// ---- The page -----------------------------------------------------------------------------------------------------

const OPTIMIZERS = { sgd: "gradient descent", rmsprop: "RMSprop", adam: "Adam" };
let mounted = 0; // makes ids unique on a page

/** Show a trace in `el`. Options: query, step, settings, without, neighbour, and onChange, which gets all of these.
    Returns { show, destroy }. */
export function mount(el, payload, { onChange = () => {}, ...view } = {}) {
  const trace = unpack(payload), id = `em-${(mounted += 1)}`, atStart = { ...payload.settings };
  let state = { query: 0, step: payload.settings.steps, settings: atStart, without: [], neighbour: null, ...view };
  let plays = false, fits = [], stepAt = {};

  const control = (name, label, attributes, read) => slider(`${id}-${name}`, "em", label, attributes, (value) => set(read(value)));
  const sliders = {
    neighbours: control("k", "K, neighbours", { min: 1, max: Math.min(MOST, trace.N), step: 1 }, (neighbours) => ({ neighbours })),
    steps: control("t", "T, steps", { min: 0, max: LONGEST, step: 1 }, (steps) => ({ steps })),
    rate: control("a", "α, rate", { min: -3, max: 1, step: 0.05 }, (power) => ({ rate: Number((10 ** power).toPrecision(2)) })),
    prior: control("b", "β, pull back to θ", { min: 0, max: 1, step: 0.05 }, (prior) => ({ prior })),
  };
  const shownAt = { neighbours: (v) => v, steps: (v) => v, rate: (v) => Math.log10(Math.max(v, 1e-9)), prior: (v) => v };
  const radios = Object.entries(OPTIMIZERS).map(([value, name]) => {
    const input = node("input", { type: "radio", name: `${id}-optimizer`, value, onchange: () => set({ optimizer: value }) });
    return { input, row: node("label", {}, input, span(name)) };
  });
  const reset = node("button", { type: "button", class: "em-plain", onclick: () => show({ settings: atStart, step: atStart.steps, without: [] }) }, "All as at the start");

  const result = node("p", { class: "em-result" }), story = node("p", { class: "em-story" }), { region, tell } = speaker();
  const { button: playButton, play, toggle } = player("em", 900, {
    begin: () => { if (state.step === state.settings.steps) show({ step: 0 }); },
    next: () => state.step < state.settings.steps && (show({ step: state.step + 1 }), true),
    changed: (now) => { plays = now; speak(); },
  });
  const stepper = node("input", { type: "range", class: "em-stepper", min: 0, step: 1, "aria-label": "Step", oninput: () => show({ step: Number(stepper.value) }) });
  const clock = node("span", { class: "em-clock" });
  const { list: queries, fill: fillQueries } = listbox({ class: "em-row", "aria-orientation": "horizontal", "aria-label": "The queries" });
  const { list: neighbours, fill: fillNeighbours } = listbox({ class: "em-row", "aria-orientation": "horizontal", "aria-label": "The neighbours, the nearest first",
    "aria-keyshortcuts": "Delete" });
  const neighboursTitle = node("p", { class: "em-label" });
  const asked = node("div", { class: "em-asked" }), answers = node("ul", { class: "em-answers" }), others = node("p", { class: "em-note" });
  const about = node("div", { class: "em-card em-about" }), gone = node("div", { class: "em-row em-gone" });
  const chart = (label) => node("div", { class: "em-card em-chart" }, node("p", { class: "em-label" }, label), shape("svg", { role: "img" }), node("p", { class: "em-keys" }));
  const curves = chart("Class probabilities, by step"), movement = chart("How far θ has moved, ‖θₓ − θ‖, by step");
  const numbers = folded("The two charts as numbers", stepsAsNumbers);
  const key = (kind, text) => span(node("i", { class: `em-sample em-sample-${kind}`, "aria-hidden": "true" }), text);
  const root = node("div", { class: "episodic-memory tex2jax_ignore mathjax_ignore", role: "group", tabindex: -1,
    "aria-label": `Episodic memory: ${trace.title}`, "data-lm-suppress-shortcuts": "true" },
  node("p", { class: "em-title" }, trace.title), node("p", { class: "em-note" }, trace.note),
  node("p", { class: "em-label em-first" }, "Choose a query: arrow keys move, Enter chooses. Below each: does the network name its class (✓) or not (✗), before the fit and after it?"), queries, result,
  node("div", { class: "em-settings" }, ...Object.values(sliders).map(({ row }) => row)),
  node("div", { class: "em-choice" }, node("fieldset", {}, node("legend", {}, "Optimizer"), ...radios.map(({ row }) => row)), reset),
  node("div", { class: "em-controls" }, playButton, stepper, clock), story,
  node("div", { class: "em-cards" },
    node("div", { class: "em-card em-wide" }, node("p", { class: "em-label" }, "Class probabilities, ", key("before", "by the network alone"), key("now", "at this step")),
      node("div", { class: "em-both" }, asked, node("div", {}, answers, others))), about),
  neighboursTitle, neighbours, gone, node("div", { class: "em-cards" }, curves, movement), numbers.place, region);

  const bar = (kind, value) => node("span", { class: "em-track" }, node("span", { class: `em-fill em-fill-${kind}`, style: { width: `${100 * clamp(value, 0, 1)}%` } }));
  const now = () => fits[state.query];
  const picked = () => (now().context.some(({ position }) => position === state.neighbour) || state.without.includes(state.neighbour) ? state.neighbour : now().context[0].position);
  const sign = (right) => span(right ? "✓" : "✗");

  // The style sheet writes a neighbour's weight: the button's own name says it in words.
  const thumb = (what, image, label, foot, attributes) => node("button", { type: "button", class: `em-thumb em-is-${what}`, ...attributes },
    picture(image, 48), node("span", { class: "em-name" }, trace.names[label], what === "same" ? " ◂" : ""), node("span", { class: "em-foot", "aria-hidden": "true" }, ...foot));

  function drawQueries() {
    const right = (query, step) => top(fits[query].steps[step].p) === trace.truth[query], last = state.settings.steps;
    fillQueries(range(trace.Q).map((query) => {
      const y = trace.truth[query], [was, is] = [right(query, 0), right(query, last)];
      return thumb("query", trace.queryImages[query], y, [sign(was), " → ", sign(is)], { "data-key": query,
        "aria-label": `query ${query}, ${trace.names[y]}: ${was ? "right" : "wrong"} before, ${is ? "right" : "wrong"} after`, onclick: () => show({ query, neighbour: null }) });
    }), String(state.query));
    const rights = (step, which = () => true) => range(trace.Q).filter((query) => which(trace.truth[query]) && right(query, step)).length;
    const part = (words, which) => `${rights(0, which)} → ${rights(last, which)} of ${range(trace.Q).filter((query) => which(trace.truth[query])).length} ${words}`;
    result.textContent = `Named rightly, before → after the fit: ${part("queries", () => true)}` +
      (trace.known.size && trace.known.size < trace.C ? `; ${part("of known classes", (y) => trace.known.has(y))}, ${part("of new ones", (y) => !trace.known.has(y))}.` : ".");
  }

  function drawAnswers() {
    const { context, vote, steps } = now(), y = trace.truth[state.query], { p } = steps[state.step], before = steps[0].p, after = steps[state.settings.steps].p;
    const best = (values) => range(trace.C).sort((a, b) => values[b] - values[a]).slice(0, 3);
    const wanted = [y, ...best(p), ...best(before), ...best(after), ...range(trace.C).filter((c) => vote[c]).sort((a, b) => vote[b] - vote[a])];
    const listed = [...new Set(wanted)].slice(0, SHOWN).sort((a, b) => Math.max(p[b], before[b]) - Math.max(p[a], before[a]));
    asked.replaceChildren(picture(trace.queryImages[state.query], 112), node("p", {}, node("b", {}, trace.names[y])), node("p", { class: "em-note" }, `query ${state.query}`));
    answers.replaceChildren(...listed.map((label) => node("li", { class: label === y ? "em-true" : "" },
      node("span", { class: "em-name" }, trace.names[label], label === y ? " ◂" : ""),
      node("span", { class: "em-bars" }, bar("before", before[label]), bar("now", p[label])),
      node("span", { class: "em-numbers" }, span(percent(before[label])), span(`→ ${percent(p[label])}`)),
      node("small", {}, `${trace.known.size ? (trace.known.has(label) ? "known" : "new") : ""}${trace.known.size ? ", " : ""}` +
        `${count(context.filter((each) => each.label === label).length, "neighbour")}, ${percent(vote[label])} of their weight${label === y ? " ◂ the query's own class" : ""}`))));
    const rest = range(trace.C).filter((label) => !listed.includes(label));
    others.textContent = rest.length ? `The other ${rest.length === 1 ? "class" : `${rest.length} classes`}: ${percent(sum(rest.map((c) => before[c])))} → ${percent(sum(rest.map((c) => p[c])))}.` : "";
  }

  function drawNeighbours() {
    const { context } = now(), most = context[0].weight, y = trace.truth[state.query], chosen = picked();
    neighboursTitle.textContent = `The ${context.length === 1 ? "nearest" : `${context.length} nearest`} of ${trace.N - state.without.length} keys in memory, each with its weight w. ` +
      "A frame and ◂ mark the query's own class. Arrow keys move, Enter tells of one, Delete takes it out.";
    fillNeighbours(context.map(({ position, label, weight }, rank) => thumb(label === y ? "same" : "other", trace.images[position], label,
      [node("span", { class: "em-number", "data-text": fixed(weight, 3) }), bar("weight", weight / most)], { "data-key": position, onclick: () => show({ neighbour: position }),
        "aria-label": `neighbour ${rank + 1}, ${trace.names[label]}${label === y ? ", of the query's class" : ""}: weight ${fixed(weight, 3)}` })), String(chosen));
    gone.hidden = !state.without.length;
    gone.replaceChildren(node("p", { class: "em-label" }, "Taken out of memory:"), ...state.without.map((position) => node("button", { type: "button", class: "em-plain em-back",
      onclick: () => bringBack(position) }, picture(trace.images[position], 24), `put ${trace.names[trace.values[position]]} (${position}) back`)));
  }

  function drawAbout() {
    const { context, steps } = now(), position = picked(), at = context.findIndex((each) => each.position === position), label = trace.values[position];
    const out = state.without.includes(position), focused = about.contains(document.activeElement) && document.activeElement.matches("button");
    const button = node("button", { type: "button", class: "em-plain", onclick: () => (out ? bringBack(position) : takeOut(position)) }, out ? "Put it back" : "Take it out of memory");
    if (!out && trace.N - state.without.length === 1) button.disabled = true;
    about.replaceChildren(node("p", { class: "em-label" }, "A neighbour: ", node("b", {}, trace.names[label])), node("div", { class: "em-both" }, picture(trace.images[position], 84),
      node("div", {}, node("p", {}, `Position ${position} in memory${trace.known.size ? `; a class that the network ${trace.known.has(label) ? "knows" : "does not know"}` : ""}.`),
        node("p", {}, out ? "It is taken out of memory." : `Neighbour ${at + 1}: ‖h − q‖² = ${fixed(context[at].distance, 3)}, w = ${fixed(context[at].weight, 3)}.`),
        ...(out ? [] : [node("p", {}, `Its own class has ${percent(steps[0].own[at])} by the network alone, ${percent(steps[state.step].own[at])} at this step.`)]), button)));
    if (focused) button.focus({ preventScroll: true });
  }

  /** What the chart of probabilities shows: the query's class, and what is said at first and at last where that is another. */
  function shownLines() {
    const { steps } = now(), y = trace.truth[state.query], first = top(steps[0].p), last = top(steps[state.settings.steps].p);
    const words = { true: "the query's class", first: "what the network says alone", last: "what the fitted one says" };
    return [["true", y], ["first", first], ["last", last]].filter(([kind, label]) => kind === "true" || (label !== y && (kind === "first" || label !== first)))
      .map(([kind, label]) => ({ kind, name: trace.names[label], words: words[kind], values: steps.map(({ p }) => p[label]) }));
  }
  function stepsAsNumbers() {
    const { steps } = now(), lines = shownLines();
    return [{ caption: `Query ${state.query}, ${trace.names[trace.truth[state.query]]}`, heads: ["step", ...lines.map(({ name, words }) => `${name}: ${words}`), "‖θₓ − θ‖", "loss of the neighbours"],
      rows: steps.map(({ moved, loss }, t) => [String(t), ...lines.map(({ values }) => percent(values[t])), fixed(moved, 3), fixed(loss, 3)]) }];
  }
  function drawCharts() {
    const { steps } = now(), lines = shownLines(), T = state.settings.steps, moved = steps.map((each) => each.moved), at = state.step;
    stepAt.curves = drawChart(curves.querySelector("svg"), { cursor: at, high: 1, lines: [...lines].reverse() });
    curves.querySelector(".em-keys").replaceChildren(...lines.map(({ kind, name, words }) =>
      span(lineSample(`em-line em-line-${kind}`, `em-dot-${kind}`, MARKS[DOTS[kind]]), `${name}: ${words}`)));
    curves.querySelector("svg").setAttribute("aria-label", `Class probabilities at the steps 0, ${at} and ${T}: ` +
      `${lines.map(({ name, words, values }) => `${name}, ${words}, ${[0, at, T].map((t) => percent(values[t])).join(", ")}`).join("; ")}. All steps are in the table below.`);
    stepAt.movement = drawChart(movement.querySelector("svg"), { cursor: at, high: Math.max(...moved, 1e-3), lines: [{ kind: "moved", values: moved }] });
    movement.querySelector(".em-keys").replaceChildren(span(`at this step ${fixed(moved[at], 3)}; ‖θ‖ = ${fixed(Math.hypot(...trace.theta), 2)}; ` +
      `loss of the neighbours ${fixed(steps[0].loss, 3)} → ${fixed(steps[at].loss, 3)}`));
    movement.querySelector("svg").setAttribute("aria-label", `How far θ has moved at the steps 0, ${at} and ${T}: ${[0, at, T].map((t) => fixed(moved[t], 3)).join(", ")}. All steps are in the table below.`);
    numbers.draw();
  }

  function draw() {
    const { settings, step, query } = state;
    Object.assign(root.dataset, { step, query, theme: darkTheme() ? "dark" : "light" });
    for (const [name, { input, value }] of Object.entries(sliders)) {
      const text = name === "rate" ? short(settings.rate) : String(settings[name]);
      if (Math.abs(Number(input.value) - shownAt[name](settings[name])) > 0.02) input.value = shownAt[name](settings[name]);
      input.setAttribute("aria-valuetext", text);
      value.textContent = text;
    }
    for (const { input } of radios) input.checked = input.value === settings.optimizer;
    stepper.max = settings.steps;
    stepper.value = step;
    stepper.setAttribute("aria-valuetext", `${step} of ${settings.steps}`);
    clock.textContent = `step ${step} of ${settings.steps}`;
    story.textContent = describe(trace, { query, step }, now());
    drawQueries();
    drawAnswers();
    drawNeighbours();
    drawAbout();
    drawCharts();
    speak();
  }
  /** Read aloud what changed, but not step by step while it plays. A neighbour is told of when one was chosen. */
  const speak = () => {
    if (!plays) tell(result.textContent, story.textContent, state.neighbour === null ? "" : [...about.querySelectorAll("p")].map((each) => each.textContent).join(" "));
  };

  // ---- Keeping it all up to date ----------------------------------------------------------------------------------
  const refit = () => { fits = range(trace.Q).map((query) => fit(trace, query, state.settings, state.without)); };
  /** Other settings; who looks at the last step goes on looking at the last one. */
  const set = (part) => {
    const settings = { ...state.settings, ...part };
    show({ settings, step: state.step === state.settings.steps ? settings.steps : state.step });
  };
  const takeOut = (position) => { if (trace.N - state.without.length > 1) show({ without: [...state.without, position].sort((a, b) => a - b), neighbour: null }); };
  const bringBack = (position) => show({ without: state.without.filter((each) => each !== position), neighbour: position });

  function show(part, tell = true) {
    const within = root.contains(document.activeElement), before = state;
    state = { ...state, ...part };
    state.step = clamp(state.step, 0, state.settings.steps);
    if (JSON.stringify(before) === JSON.stringify(state)) return;
    if (JSON.stringify([before.settings, before.without]) !== JSON.stringify([state.settings, state.without])) refit();
    draw();
    if (within && !root.contains(document.activeElement)) root.focus({ preventScroll: true }); // what had it is gone
    if (tell) onChange(state);
  }

  const keys = {
    ArrowLeft: () => show({ step: state.step - 1 }), ArrowRight: () => show({ step: state.step + 1 }),
    Home: () => show({ step: 0 }), End: () => show({ step: state.settings.steps }), " ": toggle, Escape: () => show({ neighbour: null }),
  };
  root.addEventListener("keydown", (event) => {
    const { target, key: pressed } = event;
    if (event.altKey || event.ctrlKey || event.metaKey || target.matches("[type=radio], .em-setting input") || target.closest(".em-folded")) return;
    const action = pressed === "Delete" && neighbours.contains(target) ? () => takeOut(Number(target.dataset.key)) : keys[pressed];
    if (!action || (pressed === " " && target.matches("button"))) return; // the browser presses it
    event.preventDefault();
    event.stopPropagation();
    action();
  });
  for (const [card, name] of [[curves, "curves"], [movement, "movement"]]) {
    card.querySelector("svg").addEventListener("click", (event) => show({ step: stepAt[name](event.clientX) }));
  }

  refit();
  const destroy = keepDrawn(el, root, draw, { resize: drawCharts, leave: () => play(false) });
  play(false);
  return { show: (part) => show(part, false), destroy };
}

/** Mount every viewer of a static page that is not mounted yet. */
export const mountAll = () => mountEach("em", (place, { content, ...view }) => mount(place, content, view));

export default { render: renderer(mount, "trace", ["query", "step", "settings", "without", "neighbour"]) };
