// A regression by hand: one query, its nearest samples, and what the network, attention and the fitted network answer
// (lib/inspector/local_fit.py). `mount` puts it on a page; the default export does the same in a live notebook.

import {
  clamp, darkTheme, draggable, fixed, folded, keepDrawn, lineSample, MARKS, mountEach, node, range, renderer, shape, slider, span, speaker, sum,
} from "./page.js";

const WIDTH = 720, HEIGHT = 380, LEFT = 40, RIGHT = 712, TOP = 10, BOTTOM = 356, LONGEST = 50, STEP = 0.05;
const FAR = 100; // an answer beyond it shows that the descent ran away

// ---- The fit ------------------------------------------------------------------------------------------------------

/** C of a query: its nearest samples, the nearest first, with their weights. */
export function contextOf([xs, ys], query, { neighbours, epsilon }) {
  const found = xs.map((x, i) => ({ i, x, y: ys[i], distance: (x - query) ** 2 })).sort((a, b) => a.distance - b.distance).slice(0, neighbours);
  const total = sum(found.map(({ distance }) => 1 / (epsilon + distance)));
  return found.map((each) => ({ ...each, weight: 1 / (epsilon + each.distance) / total }));
}

/** What a network [w, b, v, [c]] says of x: v·tanh(w x + b) + c. */
export const answer = ([w, b, v, [c]], x) => w.reduce((total, each, i) => total + v[i] * Math.tanh(each * x + b[i]), c);

/** θ_x: the network after T steps of gradient descent on half of the weighted square errors, each pulled back by β. */
export function fitted(theta, context, { steps, rate, prior }) {
  const start = theta.map((part) => Float64Array.from(part)), own = start.map((part) => part.slice()), gradient = start.map((part) => new Float64Array(part.length));
  const [w, b, v, c] = own, [byW, byB, byV, byC] = gradient, hidden = new Float64Array(w.length);
  for (let step = 0; step < steps; step++) {
    for (const part of gradient) part.fill(0);
    for (const { x, y, weight } of context) {
      let said = c[0];
      for (let i = 0; i < w.length; i++) said += v[i] * (hidden[i] = Math.tanh(w[i] * x + b[i]));
      const error = weight * (said - y);
      for (let i = 0; i < w.length; i++) {
        const inner = error * v[i] * (1 - hidden[i] * hidden[i]);
        byW[i] += inner * x;
        byB[i] += inner;
        byV[i] += error * hidden[i];
      }
      byC[0] += error;
    }
    own.forEach((part, p) => { for (let i = 0; i < part.length; i++) part[i] -= rate * gradient[p][i] + prior * (part[i] - start[p][i]); });
  }
  return own;
}

/** A function of points [xs, ys], evenly spaced, at x. */
export function valueAt([xs, ys], x) {
  const place = clamp(((x - xs[0]) / (xs.at(-1) - xs[0])) * (xs.length - 1), 0, xs.length - 1), i = Math.min(Math.floor(place), xs.length - 2);
  return ys[i] + (place - i) * (ys[i + 1] - ys[i]);
}

const isNear = (value) => Math.abs(value) < FAR; // not NaN either

/** All that is said of one query. */
export function answers({ network, memory }, query, settings) {
  const context = contextOf(memory, query, settings), own = fitted(network, context, settings);
  const moved = Math.hypot(...own.flatMap((part, p) => Array.from(part, (value, i) => value - network[p][i])));
  return { context, own, moved, network: answer(network, query), attention: sum(context.map(({ weight, y }) => weight * y)), fitted: answer(own, query) };
}

// ---- The page -----------------------------------------------------------------------------------------------------

const WAYS = { network: "the network as trained", attention: "attention", fitted: "the network fitted to this query" };
const SHAPES = { network: MARKS.square, attention: MARKS.diamond, fitted: MARKS.circle };
let mounted = 0; // makes ids unique on a page

/** Show `content`, regressions by name, in `el`. Options: variant, query, settings, and onChange, which gets these.
    Returns { show, destroy }. */
export function mount(el, content, { onChange = () => {}, ...view } = {}) {
  const names = Object.keys(content), id = `lf-${(mounted += 1)}`;
  const start = { variant: names[0], query: 0, settings: content[names[0]].settings, ...view };
  let state = start, everywhere = null, waiting = null;
  const all = Object.values(content).flatMap(({ memory, truth }) => [...memory[1], ...truth[1]]);
  const [xs] = content[names[0]].truth, edge = Math.max(...xs.map(Math.abs)), low = Math.min(...all) - 0.5, high = Math.max(...all) + 0.5;
  const px = (x) => LEFT + ((RIGHT - LEFT) * (x + edge)) / (2 * edge), py = (y) => BOTTOM - ((BOTTOM - TOP) * (clamp(y, low - 9, high + 9) - low)) / (high - low);
  const longest = Math.max(LONGEST, ...[start, ...Object.values(content)].map(({ settings }) => settings.steps));
  const grid = range(121).map((i) => edge * (i / 60 - 1));

  const control = (name, label, attributes, read) => slider(`${id}-${name}`, "em", label, attributes, (value) => change(read(value)));
  const setting = (name, value) => ({ settings: { ...state.settings, [name]: value } });
  const sliders = {
    query: control("x", "The query, x", { min: -edge, max: edge, step: STEP }, (query) => ({ query })),
    neighbours: control("k", "K, neighbours", { min: 1, max: content[names[0]].memory[0].length, step: 1 }, (k) => setting("neighbours", k)),
    steps: control("t", "T, steps", { min: 0, max: longest, step: 1 }, (steps) => setting("steps", steps)),
    rate: control("a", "α, rate", { min: -3, max: 0, step: 0.05 }, (power) => setting("rate", Number((10 ** power).toPrecision(2)))),
    prior: control("b", "β, pull back to θ", { min: 0, max: 1, step: 0.05 }, (prior) => setting("prior", prior)),
  };
  const shownAt = { query: () => state.query, rate: () => Math.log10(Math.max(state.settings.rate, 1e-9)) };
  const radios = names.map((variant) => {
    const input = node("input", { type: "radio", name: `${id}-variant`, value: variant, onchange: () => change({ variant }) });
    return { input, row: node("label", {}, input, span(variant)) };
  });
  const whole = node("input", { type: "checkbox", onchange: () => draw() });
  const reset = node("button", { type: "button", class: "em-plain", onclick: () => { whole.checked = false; change(start); } }, "All as at the start");

  const axes = shape("g"), curves = shape("g"), samples = shape("g"), marks = shape("g");
  const line = shape("path", { class: "lf-query-line" });
  // For pointers alone: keys have the slider of the query, and that one is enough.
  const handle = shape("g", { class: "lf-handle" }, shape("circle", { class: "lf-grip", r: 26 }), shape("path", { class: "lf-query", d: "M0-10L9 8H-9z" }));
  const plane = shape("svg", { class: "lf-plane", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" }, axes, curves, samples, line, marks, handle);
  const story = node("p", { class: "em-story" }), { region, tell } = speaker(), numbers = folded("What is drawn, as numbers", asNumbers);
  const key = (kind, text) => span(lineSample(`lf-line lf-line-${kind}`, SHAPES[kind] && `lf-mark-${kind}`, SHAPES[kind]), text);
  const root = node("div", { class: "episodic-memory local-fit tex2jax_ignore mathjax_ignore", role: "group", tabindex: -1, "aria-label": "A regression by hand",
    "data-lm-suppress-shortcuts": "true" },
  node("div", { class: "em-choice" }, node("fieldset", {}, node("legend", {}, "The function has"), ...radios.map(({ row }) => row)), reset),
  node("div", { class: "em-settings" }, ...Object.values(sliders).map(({ row }) => row)),
  node("div", {}, plane, node("p", { class: "em-keys" }, key("truth", "the function now"), key("network", WAYS.network), key("fitted", `${WAYS.fitted}, everywhere`),
    key("attention", "attention: a constant, here over its neighbours"), span("○ in memory; filled: among the K nearest, the larger, the more weight"), span("▲ the query: drag it, click, or move its slider"))),
  node("fieldset", {}, node("label", {}, whole, span("Also show every query, each with a fit of its own: MbPA (thin line, small circles) and attention (thin line, small diamonds)"))),
  story, numbers.place, region);

  const path = (kind, points) => {
    const near = points.filter(([, y]) => isNear(y)).map(([x, y]) => `${px(x).toFixed(1)} ${py(y).toFixed(1)}`);
    return shape("path", { class: `lf-line lf-line-${kind}`, d: near.length ? `M${near.join("L")}` : "" });
  };
  const mark = (kind, x, value, { name = "lf-mark", scale = 1 } = {}) =>
    shape("path", { class: `${name} lf-mark-${kind}`, d: SHAPES[kind], transform: `translate(${px(x).toFixed(2)} ${py(value).toFixed(2)}) scale(${scale})` });
  /** A way's answers at every query: a thin line with its small marks. */
  const linesEverywhere = (line, way) => [path(line, grid.map((x, i) => [x, everywhere[i][way]])),
    ...grid.flatMap((x, i) => (i % 8 === 4 && isNear(everywhere[i][way]) ? [mark(way, x, everywhere[i][way], { name: "lf-small", scale: 0.55 })] : []))];

  function drawPlane(found) {
    const { memory, truth, network } = content[state.variant], weights = new Map(found.context.map(({ i, weight }) => [i, weight]));
    const within = found.context.map(({ x }) => x), ticks = range(Math.floor(high) - Math.ceil(low) + 1).map((i) => Math.ceil(low) + i);
    axes.replaceChildren(...ticks.map((y) => shape("path", { class: "em-grid", d: `M${LEFT} ${py(y)}H${RIGHT}` })), ...ticks.map((y) => shape("text", { x: LEFT - 6, y: py(y) + 4, "text-anchor": "end" }, fixed(y, 0))),
      ...range(2 * Math.floor(edge) + 1).map((i) => i - Math.floor(edge)).map((x) => shape("text", { x: px(x), y: HEIGHT - 6, "text-anchor": "middle" }, fixed(x, 0))));
    curves.replaceChildren(path("truth", truth[0].map((x, i) => [x, truth[1][i]])), path("network", grid.map((x) => [x, answer(network, x)])),
      ...(whole.checked && everywhere ? [...linesEverywhere("all", "fitted"), ...linesEverywhere("votes", "attention")] : []),
      path("fitted", grid.map((x) => [x, answer(found.own, x)])),
      path("attention", [Math.min(...within, state.query), Math.max(...within, state.query)].map((x) => [x, found.attention])));
    samples.replaceChildren(...memory[0].map((x, i) => shape("circle", { class: weights.has(i) ? "lf-used" : "lf-held", cx: px(x), cy: py(memory[1][i]),
      r: weights.has(i) ? (4 + 10 * Math.sqrt(weights.get(i))).toFixed(2) : 3.5 })));
    line.setAttribute("d", `M${px(state.query)} ${TOP}V${BOTTOM}`);
    marks.replaceChildren(...Object.keys(WAYS).filter((way) => isNear(found[way])).map((way) => mark(way, state.query, found[way])));
    handle.setAttribute("transform", `translate(${px(state.query)} ${BOTTOM - 4})`);
  }

  /** Ask every query where that is wished; with many steps once the reader has been still for a moment. */
  function answerEverywhere() {
    clearTimeout(waiting);
    if (!whole.checked || everywhere) return;
    const ask = () => { everywhere = grid.map((x) => answers(content[state.variant], x, state.settings)); };
    if (state.settings.steps <= LONGEST) ask();
    else waiting = setTimeout(() => { ask(); draw(); }, 300);
  }

  /** What is drawn, for who cannot see it: the samples, and the curves at some places. */
  function asNumbers() {
    const { memory, truth, network } = content[state.variant], found = answers(content[state.variant], state.query, state.settings);
    const weights = new Map(found.context.map(({ i, weight }) => [i, weight])), order = range(memory[0].length).sort((a, b) => memory[0][a] - memory[0][b]);
    const places = range(Math.round(4 * edge) + 1).map((i) => i / 2 - edge);
    const itself = (x) => { const own = answers(content[state.variant], x, state.settings); return [own.fitted, own.attention]; };
    return [
      { caption: `The samples in memory, and their weights for the query at ${fixed(state.query)}`, heads: ["x", "y", "w"],
        rows: order.map((i) => [fixed(memory[0][i]), fixed(memory[1][i]), weights.has(i) ? fixed(weights.get(i), 3) : "–"]) },
      { caption: "The curves", heads: ["x", "the function now", WAYS.network, `the network fitted to the query at ${fixed(state.query)}`, ...(whole.checked ? ["fitted to x itself", "attention at x itself"] : [])],
        rows: places.map((x) => [x, valueAt(truth, x), answer(network, x), answer(found.own, x), ...(whole.checked ? itself(x) : [])].map((each) => fixed(each))) },
    ];
  }

  function draw() {
    const found = answers(content[state.variant], state.query, state.settings), { truth } = content[state.variant];
    answerEverywhere();
    Object.assign(root.dataset, { theme: darkTheme() ? "dark" : "light", query: fixed(state.query, 2) });
    for (const [name, { input, value }] of Object.entries(sliders)) {
      const wanted = shownAt[name]?.() ?? state.settings[name], text = name === "query" ? fixed(state.query, 2) : String(state.settings[name]);
      if (Math.abs(Number(input.value) - wanted) > 0.02) input.value = wanted;
      input.setAttribute("aria-valuetext", text);
      value.textContent = text;
    }
    for (const { input } of radios) input.checked = input.value === state.variant;
    drawPlane(found);
    const words = `x = ${fixed(state.query)}: the function is ${fixed(valueAt(truth, state.query))} there. The network says ${fixed(found.network)}, attention ${fixed(found.attention)}, ` +
      `the fitted network ${fixed(found.fitted)}. The nearest of ${found.context.length} ${found.context.length === 1 ? "sample" : "samples"} has weight ${fixed(found.context[0].weight)}; θ has moved by ${fixed(found.moved, 3)}.` +
      (isNear(found.fitted) ? "" : " The descent ran away: lower α, or do fewer steps.");
    const error = (way) => fixed(Math.sqrt(sum(grid.map((x, i) => (everywhere[i][way] - valueAt(truth, x)) ** 2)) / grid.length));
    const overall = whole.checked && everywhere ? `Over ${grid.length} queries from ${fixed(-edge, 0)} to ${fixed(edge, 0)}, each with a fit of its own, the root of the mean squared error is ` +
      `${error("network")} for the network, ${error("attention")} for attention, ${error("fitted")} for MbPA.` : "";
    story.textContent = `${words} ${overall}`.trim();
    tell(words, overall);
    plane.setAttribute("aria-label", `Over x from ${fixed(-edge, 0)} to ${fixed(edge, 0)}: the function now, the network as trained, the network fitted to the query at ${fixed(state.query)}, attention, ` +
      `and the samples in memory${whole.checked ? ", and what attention and MbPA answer at every query" : ""}. The numbers are below the drawing.`);
    numbers.draw();
  }

  function show(part, tell = true) {
    const before = state;
    state = { ...state, ...part };
    if (JSON.stringify(before) === JSON.stringify(state)) return draw();
    if (before.settings !== state.settings || before.variant !== state.variant) everywhere = null;
    draw();
    if (tell) onChange(state);
  }
  const change = (part) => show(part);
  const move = (x) => change({ query: clamp(Math.round(x / STEP) * STEP, -edge, edge) });

  // ---- Pointer -----------------------------------------------------------------------------------------
  const drag = (event) => {
    const box = plane.getBoundingClientRect(), at = ((event.clientX - box.left) * WIDTH) / box.width;
    move(((at - LEFT) / (RIGHT - LEFT)) * 2 * edge - edge);
  };
  draggable(plane, handle, { drag });

  return { show: (part) => show(part, false), destroy: keepDrawn(el, root, draw, { leave: () => clearTimeout(waiting) }) };
}

/** Mount every widget of a static page that is not mounted yet. */
export const mountAll = () => mountEach("lf", (place, { content, ...view }) => mount(place, content, view));

export default { render: renderer(mount, "content", ["variant", "query", "settings"]) };
