// The viewer of a labelled memory: shows what an LMN did on one stream (lib/inspector/labelled.py), step by step.
// `mount` puts it on a page; the default export does the same in a live notebook (anywidget). Steps count from 0.

import {
  clamp, darkTheme, fixed, keepDrawn, listbox, mountEach, node, player, range, renderer, shape, span, unpackArrays,
} from "./page.js";

const BEFORE = 0, AFTER = 1, MIXTURE = 0, NETWORK = 1, MEMORY = 2;

const last = (values) => values[values.length - 1];
const percent = (value) => `${value > 0 && value < 0.0005 ? "< 0.1" : (100 * value).toFixed(1)} %`;
const rankOf = (value) => (Number.isInteger(value) ? String(value) : fixed(value, 1));

/** A trace's arrays as numbers, and what follows from them. Exported for the tests. */
export function unpack(payload) {
  const { arrays, shapes } = unpackArrays(payload);
  const [T, S] = shapes.shown, [, R, C] = shapes.weights;
  const at = (name) => (...index) => arrays[name][index.reduce((flat, i, axis) => flat * shapes[name][axis] + i, 0)];
  const get = Object.fromEntries(Object.keys(arrays).map((name) => [name, at(name)]));
  const rowOf = (t, label) => range(R).find((r) => get.row_label(t, r) === label) ?? -1; // before step t; T for the end
  const theta = (t, label, when = BEFORE) => {
    const row = rowOf(t + when, label);
    return get.theta(t, when, row < 0 ? R : row);
  };
  const surprise = (stage) => range(T).map((t) => get.surprise(t, BEFORE, stage));
  const soFar = (values) => { let sum = 0; return values.map((value, t) => (sum += value) / (t + 1)); };
  /** For each cell of a row, the { step, share } of every h in it before step `until`. */
  function madeOf(row, until) {
    const cells = range(C).map(() => []);
    for (const t of range(until).filter((t) => get.written(t) && get.row(t) === row)) {
      for (const c of range(C)) {
        if (get.new_row(t) || c === get.replaced(t)) cells[c] = [];
        if (get.share(t, c) > 0) cells[c].push({ step: t, share: get.share(t, c) });
      }
    }
    return cells;
  }
  return {
    ...payload, ...get, T, S, R, C, rowOf, theta, madeOf,
    name: (label) => payload.names[label] ?? String(label),
    curve: (stage) => soFar(surprise(stage)),
    truth: (t, when) => get.p(t, when, MIXTURE, range(S).find((k) => get.shown(t, k) === get.revealed(t))),
    shownAt: (t) => range(S).filter((k) => get.shown(t, k) >= 0),
    writes: range(T).filter((t) => get.written(t)).length,
    kind: (t) => (!get.written(t) ? "none" : get.new_row(t) ? "label" : get.replaced(t) >= 0 ? "cell" : "added"),
  };
}

/** A step in words. */
export function describe(trace, t) {
  const { margin } = trace.settings, name = (label) => `«${trace.name(label)}»`, y = trace.revealed(t);
  const wrong = trace.wrong(t), kind = trace.kind(t), [cell] = [trace.replaced(t)];
  const what = {
    none: "Nothing is written.",
    label: `${name(y)} has no cells yet: it gets a row, and its first cell is h.`,
    cell: `The answer was wrong, so h also gets a cell of its own: cell ${cell}.`,
    added: `h is added to the ${trace.C > 1 ? "cells" : "cell"} of ${name(y)}.`,
  }[kind];
  const enough = trace.margin(t) >= margin;
  return `t = ${t}: after ${name(trace.seen(t))} comes ${name(y)}. Before the reveal it had ${percent(trace.truth(t, BEFORE))}, ` +
    `rank ${rankOf(trace.rank(t, BEFORE))}; ${wrong ? "the first choice was" : "the next best was"} ${name(trace.rival(t))}. ` +
    `The margin, ${fixed(trace.margin(t))}, is ${enough ? "large enough" : "too small"} (${enough ? "at least" : "less than"} ${margin}). ${what} ` +
    `Asked again right after: ${percent(trace.truth(t, AFTER))}, rank ${rankOf(trace.rank(t, AFTER))}.`;
}

/** Draw lines over the steps into an <svg>: [{ kind, values, from }]; a band is { kind, low, high, from }. */
function drawChart(svg, { T, cursor, lines, bands = [], low, high }) {
  const width = Math.max(svg.clientWidth, 200), height = 170, left = 38, right = width - 10, top = 10, bottom = height - 24;
  const x = (t) => left + ((right - left) * (t + 0.5)) / T, y = (value) => bottom - ((bottom - top) * (value - low)) / (high - low || 1);
  const points = (values, from) => values.map((value, i) => `${x(from + i).toFixed(1)} ${y(value).toFixed(1)}`);
  const ticks = range(5).map((i) => low + ((high - low) * i) / 4), every = [1, 2, 5, 10, 20, 50, 100, 200].find((n) => (n * (right - left)) / T > 34) ?? 500;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(
    ...ticks.map((value) => shape("path", { class: "la-grid", d: `M${left} ${y(value)}H${right}` })),
    ...ticks.map((value) => shape("text", { x: left - 5, y: y(value) + 3.5, "text-anchor": "end" }, fixed(value, high - low > 4 ? 1 : 2))),
    ...range(T).filter((t) => t % every === 0).map((t) => shape("text", { x: x(t), y: height - 8, "text-anchor": "middle" }, String(t))),
    ...bands.map(({ kind, low: from, high: to, from: start }) => shape("path", {
      class: `la-band-${kind}`, d: `M${points(to, start).join("L")}L${points(from, start).reverse().join("L")}Z` })),
    shape("path", { class: "la-cursor", d: `M${x(cursor)} ${top}V${bottom}` }),
    ...lines.map(({ kind, values, from = 0 }) => shape("path", { class: `la-line la-line-${kind}`, d: `M${points(values, from).join("L")}` })),
    ...lines.map(({ kind, values, from = 0 }) => (cursor < from || cursor >= from + values.length ? ""
      : shape("circle", { class: `la-dot-${kind}`, cx: x(cursor), cy: y(values[cursor - from]), r: 3.5 }))).filter(Boolean));
  return (clientX) => clamp(Math.floor(((clientX - svg.getBoundingClientRect().left - left) * T) / (right - left)), 0, T - 1);
}

const SIGN = { none: "·", added: "+", cell: "◆", label: "★" };
const KINDS = { none: "not written", added: "added to its cells", cell: "a cell of its own", label: "a label new to memory" };
let mounted = 0; // makes ids unique on a page

/** Show `content` (of LabelledInspector) in `el`. Options: step, label, onChange({ step, label }). Returns { show, destroy }. */
export function mount(el, content, { step = 0, label = null, onChange = () => {} } = {}) {
  const traces = content.traces.map(unpack), reference = traces[content.reference], id = `la-${(mounted += 1)}`;
  const T = reference.T, state = { picked: content.picked, step: clamp(step, 0, T - 1), label };
  const references = [reference.curve(MIXTURE), reference.curve(NETWORK)];
  let trace = traces[state.picked], stepAt = {};

  // ---- The page ---------------------------------------------------------------------------------------------------
  const title = node("p", { class: "la-title" }, trace.title), note = node("p", { class: "la-note" }, trace.note);
  const result = node("p", { class: "la-result", "aria-live": "polite" });
  const sizes = content.settings.map(({ values }) => values.length);
  const indexOf = (chosen) => chosen.reduce((flat, i, axis) => flat * sizes[axis] + i, 0);
  const chosen = sizes.map((size, axis) => Math.floor(state.picked / sizes.slice(axis + 1).reduce((a, b) => a * b, 1)) % size);
  const settings = content.settings.map(({ name, values }, axis) => node("fieldset", {}, node("legend", {}, name),
    ...values.map((value, i) => node("label", {}, node("input", { type: "radio", name: `${id}-${axis}`, value,
      ...(i === chosen[axis] ? { checked: "" } : {}), onchange: () => { chosen[axis] = i; pick(indexOf(chosen)); } }), span(value)))));
  const { button: playButton, play, toggle } = player("la", 1200, {
    begin: () => { if (state.step === T - 1) show({ step: 0 }); },
    next: () => state.step < T - 1 && (show({ step: state.step + 1 }), true),
    changed: (plays) => story.setAttribute("aria-live", plays ? "off" : "polite"),
  });
  const slider = node("input", { type: "range", class: "la-slider", min: 0, max: T - 1, step: 1, "aria-label": "Step",
    oninput: () => show({ step: Number(slider.value) }) });
  const clock = node("span", { class: "la-clock" });
  const strip = node("div", { class: "la-strip", role: "group", "aria-label": "The stream, token by token" });
  const story = node("p", { class: "la-story", "aria-live": "polite" });
  const answers = node("ul", { class: "la-answers" }), about = node("div", { class: "la-card la-about" });
  const { list: memory, fill: fillMemory } = listbox({ class: "la-memory", "aria-orientation": "vertical" }), memoryTitle = node("p", { class: "la-label" });
  const chart = (name) => node("div", { class: "la-card la-chart" }, node("p", { class: "la-label" }, name),
    shape("svg", { role: "img" }), node("p", { class: "la-keys" }));
  const curve = chart("Log-perplexity of the steps so far, in nats a token"), thetas = chart("θ, the weight of the memory");
  const key = (kind, text) => span(node("i", { class: `la-sample la-sample-${kind}`, "aria-hidden": "true" }), text);
  const root = node("div", { class: "labelled-memory tex2jax_ignore mathjax_ignore", role: "group", tabindex: -1,
    "aria-label": `Labelled memory: ${trace.title}`, "data-lm-suppress-shortcuts": "true" },
  title, note, ...(settings.length ? [node("div", { class: "la-settings" }, ...settings)] : []), result,
  node("div", { class: "la-controls" }, playButton, slider, clock), strip,
  node("p", { class: "la-legend" }, ...Object.entries(KINDS).map(([kind, words]) => span(node("b", { class: `la-sign la-is-${kind}` }, SIGN[kind]), ` ${words}`)),
    span("✓ or a number: rank of what came true, before the reveal")),
  story,
  node("div", { class: "la-cards" }, node("div", { class: "la-card la-wide" },
    node("p", { class: "la-label" }, "What is expected, "), answers), about),
  memoryTitle, memory,
  node("div", { class: "la-cards" }, curve, thetas));
  root.querySelector(".la-wide .la-label").append(key("before", "before the reveal"), key("after", "asked again after it"));
  const frames = range(T).map((t) => node("button", { type: "button", onclick: () => show({ step: t }) },
    node("span", { class: "la-token" }), node("span", { "aria-hidden": "true" })));
  strip.append(...frames);

  // ---- What is shown ----------------------------------------------------------------------------------------------
  const picked = () => state.label ?? trace.revealed(state.step);
  const toLabel = (other, ...children) => node("button", { type: "button", class: "la-name", title: trace.name(other),
    onclick: () => show({ label: other }) }, ...(children.length ? children : [trace.name(other)]));
  const bar = (kind, value) => node("span", { class: "la-track" }, node("span", { class: `la-fill la-fill-${kind}`, style: { width: `${100 * clamp(value, 0, 1)}%` } }));
  const stage = (t, k, when) => range(3).map((i) => trace.p(t, when, i, k));

  function drawStrip() {
    frames.forEach((frame, t) => {
      const kind = trace.kind(t), rank = trace.rank(t, BEFORE), right = rank === 1, name = trace.name(trace.revealed(t));
      frame.className = `la-frame la-is-${kind}`;
      frame.setAttribute("aria-label", `step ${t}: ${name}, rank ${rankOf(rank)} before, ${KINDS[kind]}`);
      frame.firstChild.textContent = name;
      // The style sheet writes the sign and the rank: the button's own name says them in words.
      Object.assign(frame.lastChild.dataset, { sign: SIGN[kind], rank: right ? "✓" : rankOf(rank) });
      frame.lastChild.className = `la-foot la-${right ? "right" : "wrong"}`;
    });
  }

  function drawAnswers(t) {
    const most = Math.max(...trace.shownAt(t).flatMap((k) => [trace.p(t, BEFORE, MIXTURE, k), trace.p(t, AFTER, MIXTURE, k)]));
    answers.replaceChildren(...trace.shownAt(t).map((k) => {
      const other = trace.shown(t, k), [before, network, own] = stage(t, k, BEFORE), [after, , ownAfter] = stage(t, k, AFTER);
      return node("li", { class: other === trace.revealed(t) ? "la-true" : "" },
        toLabel(other), node("span", { class: "la-bars" }, bar("before", before / most), bar("after", after / most)),
        node("span", { class: "la-numbers" }, span(percent(before)), span(`→ ${percent(after)}`)),
        node("small", {}, `network ${percent(network)}, memory ${percent(own)}${ownAfter === own ? "" : ` → ${percent(ownAfter)}`}, θ ${fixed(trace.theta(t, other))}` +
          (other === trace.revealed(t) ? " ◂ came true" : "")));
    }));
  }

  function drawMemory(t) {
    const written = trace.written(t) ? trace.row(t) : -1, heaviest = Math.max(...range(trace.R * trace.C).map((i) => trace.weights(T, Math.floor(i / trace.C), i % trace.C)), 1);
    const used = range(trace.R).filter((r) => trace.row_label(t, r) >= 0 || r === written);
    const width = (value) => `${(100 * value) / heaviest}%`;
    memoryTitle.textContent = `The memory at t = ${t}: ${used.length - (trace.new_row(t) ? 1 : 0)} labels, each with its cells: the weight α as a bar and a number, ∠ the cosine with h; ` +
      `at the right s, the memory's share for the label.${written < 0 ? "" : " In the other colour: what this step's write changes."}`;
    const rows = used.map((r) => {
      const fresh = written === r && trace.new_row(t), other = trace.row_label(t + (fresh ? 1 : 0), r), now = written === r;
      const count = Math.max(fresh ? 0 : trace.count(t, r), now ? trace.count(t + 1, r) : 0);
      const cells = range(count).map((c) => {
        const own = now && (fresh || trace.replaced(t) === c), before = fresh ? 0 : trace.weights(t, r, c), after = now ? trace.weights(t + 1, r, c) : before;
        return node("span", { class: "la-cell" }, node("span", { class: "la-track" },
          node("span", { class: "la-fill la-fill-weight", style: { width: width(Math.min(before, after)) } }),
          node("span", { class: `la-fill la-fill-${after < before ? "lost" : "gained"}`, style: { width: width(Math.abs(after - before)) } })),
        node("span", { class: "la-numbers" }, now ? `${fixed(before, 1)} → ${fixed(after, 1)}` : fixed(after, 1),
          own ? " new" : before ? ` ∠ ${fixed(trace.cosine(t, BEFORE, r, c))}` : ""));
      });
      const truly = other === trace.revealed(t), says = fresh ? "new" : percent(trace.s(t, BEFORE, r));
      return node("button", { type: "button", class: `la-row${now ? " la-now" : ""}${truly ? " la-true" : ""}`, "data-key": other,
        onclick: () => show({ label: state.label === other ? null : other }) },
      node("span", { class: "la-name" }, trace.name(other), truly ? node("b", {}, now ? ` ${SIGN[trace.kind(t)]}` : " ◂") : ""),
      node("span", { class: "la-cells" }, ...cells), node("span", { class: "la-s" }, says));
    });
    memory.hidden = !rows.length;
    memory.setAttribute("aria-label", `Labels in memory at step ${t}. Up and down move, Enter follows a label.`);
    fillMemory(rows, String(picked()));
  }

  function drawAbout(t) {
    const other = picked(), row = trace.rowOf(t, other), ended = trace.rowOf(t + 1, other);
    const to = (from) => node("button", { type: "button", class: "la-step", onclick: () => show({ step: from.step, label: other }) },
      `t = ${from.step}`, from.share > 0.995 ? "" : ` × ${fixed(from.share)}`);
    const seen = range(T).filter((at) => trace.revealed(at) === other);
    const before = seen.filter((at) => at < t), cells = row < 0 ? [] : trace.madeOf(row, t);
    about.replaceChildren(
      node("p", { class: "la-label" }, state.label === null ? "What came true: " : "Followed: ", node("b", {}, trace.name(other)),
        ...(state.label === null ? [] : [" ", node("button", { type: "button", class: "la-step", onclick: () => show({ label: null }) }, "follow what comes true")])),
      node("p", {}, before.length ? `It came ${before.length === 1 ? "once" : `${before.length} times`} before, last ${t - last(before)} step${t - last(before) > 1 ? "s" : ""} ago.` : "It has not come before.",
        ` θ ${fixed(trace.theta(t, other))}${trace.settings.theta === null ? "" : " (fixed)"}.`),
      ...(row < 0 ? [node("p", {}, ended < 0 ? "It is not in memory." : "It is not in memory yet, and is written in this step.")] : cells.slice(0, trace.count(t, row)).map((parts, c) =>
        node("div", { class: "la-made" }, node("p", {}, `Cell ${c}: α ${fixed(trace.weights(t, row, c))}, cosine with the present h ${fixed(trace.cosine(t, BEFORE, row, c))}; made of h at`),
          node("p", { class: "la-steps" }, ...(parts.length ? parts.map(to) : ["nothing yet"]))))),
      node("p", {}, "Comes true at"), node("p", { class: "la-steps" }, ...(seen.length ? seen.map((at) => node("button", { type: "button", class: `la-step${at === t ? " la-here" : ""}`,
        onclick: () => show({ step: at }) }, `t = ${at}`, trace.rank(at, BEFORE) === 1 ? " ✓" : `, rank ${rankOf(trace.rank(at, BEFORE))}`)) : ["no step of this stream"])));
  }

  function drawCharts() {
    const t = state.step, own = trace.curve(MIXTURE), [first, network] = references, same = trace === reference;
    const all = [own, first, network].flatMap((values) => values.slice(2)), ends = [own, first, network].map(last);
    const part = (card, name) => card.querySelector(name);
    stepAt.curve = drawChart(part(curve, "svg"), { T, cursor: t, low: Math.min(...all), high: Math.max(...all), lines: [
      { kind: "network", values: network.slice(2), from: 2 }, ...(same ? [] : [{ kind: "reference", values: first.slice(2), from: 2 }]), { kind: "own", values: own.slice(2), from: 2 }] });
    part(curve, ".la-keys").replaceChildren(key("own", `this setting ${fixed(ends[0], 3)}`), same ? "" : key("reference", `setting at the start ${fixed(ends[1], 3)}`), key("network", `network alone ${fixed(ends[2], 3)}`));
    part(curve, "svg").setAttribute("aria-label", `Log-perplexity so far at the end of the stream: this setting ${fixed(ends[0], 3)}` +
      `${same ? "" : `, setting at the start ${fixed(ends[1], 3)}`}, network alone ${fixed(ends[2], 3)}; at step ${t}: ${fixed(own[t], 3)} and ${fixed(network[t], 3)}.`);

    const other = picked(), from = range(T).find((at) => trace.rowOf(at, other) >= 0) ?? T;
    const line = range(T - from).map((i) => trace.theta(from + i, other)), others = range(T).map((at) => trace.theta(at, -2));
    const held = range(T).map((at) => range(trace.R).filter((r) => trace.row_label(at, r) >= 0).map((r) => trace.theta(at, trace.row_label(at, r))));
    const start = held.findIndex((values) => values.length), some = start < 0 ? [] : held.slice(start).map((values) => (values.length ? values : [0]));
    stepAt.theta = drawChart(part(thetas, "svg"), { T, cursor: t, low: 0, high: 1,
      bands: some.length ? [{ kind: "held", low: some.map((v) => Math.min(...v)), high: some.map((v) => Math.max(...v)), from: start }] : [],
      lines: [{ kind: "network", values: others }, ...(line.length ? [{ kind: "own", values: line, from }] : [])] });
    part(thetas, ".la-keys").replaceChildren(key("own", trace.name(other) + (line.length ? "" : ": never in memory")), key("held", "from the least to the greatest of the labels in memory"), key("network", "all other labels"));
    part(thetas, "svg").setAttribute("aria-label", trace.settings.theta !== null ? `θ is fixed at ${trace.settings.theta}.`
      : `θ of ${trace.name(other)}: ${line.length ? `${fixed(line[0])} at step ${from}, ${fixed(last(line))} at the end` : "never in memory"}. ` +
        `Of labels that are not in memory: ${fixed(others[0])} at the start, ${fixed(last(others))} at the end.`);
  }

  function draw() {
    const t = state.step, count = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
    root.dataset.step = slider.value = t;
    root.dataset.theme = darkTheme() ? "dark" : "light";
    slider.setAttribute("aria-valuetext", `${t} of ${T - 1}, ${trace.name(trace.revealed(t))}`);
    clock.textContent = `t = ${t} of ${T - 1}`;
    result.textContent = `Log-perplexity of this stream ${fixed(last(trace.curve(MIXTURE)), 3)}` +
      (trace === reference ? "" : `, with the setting at the start ${fixed(last(references[0]), 3)}`) +
      `, of the network alone ${fixed(last(references[1]), 3)}; ${count(trace.writes, "write")} in ${count(T, "step")}.`;
    story.textContent = describe(trace, t);
    frames.forEach((frame, at) => {
      frame.tabIndex = at === t ? 0 : -1;
      frame.classList.toggle("la-later", at > t);
      frame.classList.toggle("la-same", trace.revealed(at) === picked());
      frame.setAttribute("aria-current", at === t ? "step" : "false");
    });
    drawAnswers(t);
    drawMemory(t);
    drawAbout(t);
    resize();
  }
  function resize() {
    if (!strip.clientWidth) return; // a notebook may render first and attach later: the size observer calls again
    const rows = Math.ceil(T / Math.max(Math.floor(strip.clientWidth / 60), 1)); // of equal length
    strip.style.gridTemplateColumns = `repeat(${Math.ceil(T / rows)}, minmax(0, 1fr))`;
    drawCharts();
  }

  // ---- Keeping it all up to date ----------------------------------------------------------------------------------
  function pick(index) {
    trace = traces[(state.picked = index)];
    drawStrip();
    draw();
  }
  function show({ step: wanted = state.step, label: followed = state.label }) {
    const t = clamp(wanted, 0, T - 1), within = root.contains(document.activeElement);
    if (t === state.step && followed === state.label) return;
    Object.assign(state, { step: t, label: followed });
    draw();
    if (within && !root.contains(document.activeElement)) root.focus({ preventScroll: true }); // what had it is gone
    onChange({ step: t, label: followed });
  }

  const keys = {
    ArrowLeft: () => show({ step: state.step - 1 }), ArrowRight: () => show({ step: state.step + 1 }),
    Home: () => show({ step: 0 }), End: () => show({ step: T - 1 }),
    " ": toggle, Escape: () => show({ label: null }),
  };
  root.addEventListener("keydown", (event) => {
    const { target, key: pressed } = event;
    if (event.altKey || event.ctrlKey || event.metaKey || target.matches("[type=radio]")) return;
    const action = keys[pressed];
    if (!action || (pressed === " " && target.matches("button"))) return; // the browser presses it
    event.preventDefault();
    event.stopPropagation();
    action();
    if (frames.includes(target)) frames[state.step].focus();
  });
  for (const [card, name] of [[curve, "curve"], [thetas, "theta"]]) {
    card.querySelector("svg").addEventListener("click", (event) => show({ step: stepAt[name](event.clientX) }));
  }

  drawStrip();
  const destroy = keepDrawn(el, root, draw, { resize, leave: () => play(false) });
  play(false);
  return { show, destroy };
}

/** Mount every viewer of a static page that is not mounted yet. */
export const mountAll = () => mountEach("la", (place, { content, step, label }) => mount(place, content, { step, label }));

export default { render: renderer(mount, "content", ["step", "label"]) };
