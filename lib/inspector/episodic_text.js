// The viewer of an episodic memory of a text: at each of some places the words whose probability a fit changed, and the
// steps of the past that it was fitted to (lib/inspector/episodic_text.py). All was recorded; nothing is computed here.

import { clamp, darkTheme, fixed, keepDrawn, listbox, mountEach, node, range, renderer, span, speaker, sum, unpackArrays } from "./page.js";

const percent = (value) => `${value > 0 && value < 0.00005 ? "< 0.01" : (100 * value).toFixed(2)} %`;

/** A trace's arrays by name and index. Exported for the tests. */
export function unpack(payload) {
  const { arrays, shapes } = unpackArrays(payload);
  const at = (name) => (...index) => arrays[name][index.reduce((flat, i, axis) => flat * shapes[name][axis] + i, 0)];
  const get = Object.fromEntries(Object.keys(arrays).map((name) => [name, at(name)]));
  const [Q, S, W] = shapes.shown, [, M, L] = shapes.before, text = (words) => words.filter((word) => word >= 0).map((word) => payload.names[word]).join(" ");
  const p = (...index) => Math.exp(-get.surprise(...index));
  return {
    ...payload, ...get, p, Q, S, W, M, name: (token) => payload.names[token],
    textBefore: (query) => text(range(shapes.seen[1]).map((i) => get.seen(query, i))),
    contextBefore: (query, k) => text(range(L).map((i) => get.before(query, k, i))),
    places: (setting) => { // of K, T and α among those to choose from
      const [T, R] = [payload.steps.length, payload.rates.length];
      return [Math.floor(setting / (T * R)), Math.floor(setting / R) % T, setting % R];
    },
    gain: (query, setting) => (get.surprise(query, setting, 0, 0) - get.surprise(query, setting, 1, 0)) / Math.LN2, // in bits
  };
}

/** A place in words. Exported for the tests. */
export function describe(trace, query, setting) {
  const [K, T, R] = trace.places(setting), before = trace.p(query, setting, 0, 0), after = trace.p(query, setting, 1, 0);
  const seen = range(trace.M).filter((k) => trace.followed(query, k) === trace.truth(query) && trace.weights(query, K, k) > 0).length;
  return `Then came «${trace.name(trace.truth(query))}»: ${percent(before)} by the network alone, ${percent(after)} after the fit with K = ${trace.neighbours[K]}, T = ${trace.steps[T]}, α = ${trace.rates[R]}. ` +
    `It followed ${seen} of the nearest neighbours below. θ has moved by ${fixed(trace.moved(query, setting), 3)}.`;
}

let mounted = 0; // makes ids unique on a page

/** Show a trace in `el`. Options: query, setting, and onChange, which gets both. Returns { show, destroy }. */
export function mount(el, payload, { query = 0, setting = 0, onChange = () => {} } = {}) {
  const trace = unpack(payload), id = `et-${(mounted += 1)}`, state = { query, setting };
  const choice = (legend, values, which) => {
    const chosen = (i) => trace.places(state.setting).map((place, each) => (each === which ? i : place));
    const inputs = values.map((value, i) => node("input", { type: "radio", name: `${id}-${legend}`, value, onchange: () => {
      const [K, T, R] = chosen(i);
      show({ setting: (K * trace.steps.length + T) * trace.rates.length + R });
    } }));
    return { inputs, row: node("fieldset", {}, node("legend", {}, legend), ...inputs.map((input, i) => node("label", {}, input, span(String(values[i]))))) };
  };
  const choices = [
    choice("K", trace.neighbours, 0),
    choice("T", trace.steps, 1),
    choice("α", trace.rates, 2),
  ];
  const result = node("p", { class: "em-result" }), story = node("p", { class: "em-story" }), { region, tell } = speaker();
  const { list: places, fill } = listbox({ class: "et-places", "aria-label": "Places of the text" });
  const text = node("p", { class: "et-text" }), answers = node("ul", { class: "em-answers em-two" });
  const memory = node("ol", { class: "et-memory" }), memoryTitle = node("p", { class: "em-label" });
  const key = (kind, words) => span(node("i", { class: `em-sample em-sample-${kind}`, "aria-hidden": "true" }), words);
  const root = node("div", { class: "episodic-memory episodic-text tex2jax_ignore mathjax_ignore", role: "group", tabindex: -1,
    "aria-label": `Episodic memory of a text: ${trace.title}`, "data-lm-suppress-shortcuts": "true" },
  node("p", { class: "em-title" }, trace.title), node("p", { class: "em-note" }, trace.note),
  node("div", { class: "em-choice et-choice" }, ...choices.map(({ row }) => row)), result,
  node("p", { class: "em-label em-first" }, "Choose a place: arrow keys move, Enter chooses. At the right: by how many bits the fit made what followed more probable, or less."), places,
  text, story, node("div", { class: "em-cards" }, node("div", { class: "em-card et-words" },
    node("p", { class: "em-label" }, "What followed, and the words whose probability changed most, ", key("before", "by the network alone"), key("now", "after the fit")), answers)),
  memoryTitle, memory, region);
  const bar = (kind, value) => node("span", { class: "em-track" }, node("span", { class: `em-fill em-fill-${kind}`, style: { width: `${100 * clamp(value, 0, 1)}%` } }));
  const bits = (value) => `${value >= 0 ? "+" : ""}${fixed(value)}`;

  const buttons = range(trace.Q).map((at) => node("button", { type: "button", class: "et-place", "data-key": at, onclick: () => show({ query: at }) },
    node("span", { class: "et-snippet" }, `… ${trace.textBefore(at).split(" ").slice(-5).join(" ")} `, node("b", {}, trace.name(trace.truth(at)))), node("span", { class: "et-gain" })));

  function draw() {
    const { query: at, setting: by } = state, gains = range(trace.Q).map((each) => trace.gain(each, by)), now = trace.places(by), [K] = now;
    Object.assign(root.dataset, { theme: darkTheme() ? "dark" : "light", query: at, setting: by });
    choices.forEach(({ inputs }, which) => inputs.forEach((input, i) => { input.checked = i === now[which]; }));
    result.textContent = `More probable after the fit: ${gains.filter((gain) => gain > 0).length} of the ${trace.Q} words that followed.`;
    buttons.forEach((button, i) => {
      button.lastChild.textContent = bits(gains[i]);
      button.classList.toggle("et-up", gains[i] > 0);
    });
    fill(buttons, String(at));
    text.replaceChildren(node("small", {}, trace.why[at] ? `${trace.why[at]}; ${trace.held(at)} steps in memory` : `${trace.held(at)} steps in memory`), node("br"),
      `… ${trace.textBefore(at)} `, node("b", {}, trace.name(trace.truth(at))));
    story.textContent = describe(trace, at, by);
    const words = range(trace.W).map((w) => ({ word: trace.shown(at, by, w), before: trace.p(at, by, 0, w), after: trace.p(at, by, 1, w) }));
    const most = Math.max(...words.flatMap(({ before, after }) => [before, after]));
    const [truth, ...changed] = words;
    changed.sort((a, b) => Math.abs(b.after - b.before) - Math.abs(a.after - a.before));
    answers.replaceChildren(...[truth, ...changed].map(({ word, before, after }, i) => node("li", { class: i === 0 ? "em-true" : "" },
      node("span", { class: "em-name" }, `${after > before ? "▲" : after < before ? "▼" : "="} ${trace.name(word)}${i === 0 ? " ◂" : ""}`),
      node("span", { class: "em-bars" }, bar("before", before / most), bar("now", after / most)),
      node("span", { class: "em-numbers" }, span(percent(before)), span(`→ ${percent(after)}`)))));
    const shown = range(trace.M).filter((k) => trace.weights(at, K, k) > 0), total = sum(shown.map((k) => trace.weights(at, K, k)));
    memoryTitle.textContent = `The ${shown.length} nearest of ${Math.min(trace.neighbours[K], trace.held(at))} neighbours, which have ${(100 * total).toFixed(0)} % of all the weight: ` +
      "what had been read, in bold what followed (◂ where it is the word that came now, too), how many words ago that was, and the weight w.";
    memory.replaceChildren(...shown.map((k) => node("li", { class: trace.followed(at, k) === trace.truth(at) ? "et-same" : "" },
      node("span", {}, `… ${trace.contextBefore(at, k)} `, node("b", {}, trace.name(trace.followed(at, k))), trace.followed(at, k) === trace.truth(at) ? " ◂" : ""),
      node("span", { class: "et-numbers" }, `${trace.ago(at, k)} ago`), node("span", { class: "et-numbers" }, fixed(trace.weights(at, K, k), 3)))));
    tell(result.textContent, story.textContent);
  }

  function show(part, tell = true) {
    const before = { ...state }, next = { ...state, query: part.query ?? state.query, setting: part.setting ?? state.setting };
    if (before.query === next.query && before.setting === next.setting) return;
    Object.assign(state, next);
    draw();
    if (tell) onChange({ ...state });
  }
  return { show: (part) => show(part, false), destroy: keepDrawn(el, root, draw) };
}

/** Mount every viewer of a static page that is not mounted yet. */
export const mountAll = () => mountEach("et", (place, { content, ...view }) => mount(place, content, view));

export default { render: renderer(mount, "trace", ["query", "setting"]) };
