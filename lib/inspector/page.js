// What the inspectors share: elements, arrays of a trace, the theme of the page, and how a view gets onto a page.
// `lib/inspector/files.py` puts this text where a module asks for it, so that each page stands alone.

const SVG = "http://www.w3.org/2000/svg";
const TYPES = { uint8: Uint8Array, int8: Int8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array };
const PLAY = "M3 1.5v11l9-5.5z", PAUSE = "M3 2h3v10H3zM8 2h3v10H8z";

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
export const range = (count) => Array.from({ length: count }, (_, i) => i);
export const sum = (values) => values.reduce((a, b) => a + b, 0);
/** A number in words; a dash for what is none, such as after a descent that ran away. */
export const fixed = (value, digits = 2) => (!Number.isFinite(value) ? "–"
  : Math.abs(value) >= 1e6 ? value.toExponential(1) : (Number(value.toFixed(digits)) || 0).toFixed(digits)).replace("-", "−");

/** Give an element attributes (also `on…`, a function, and `style`, an object) and children. */
function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name !== "style") element.setAttribute(name, value);
    else for (const [property, setting] of Object.entries(value)) element.style.setProperty(property, setting);
  }
  element.append(...children);
  return element;
}
export const node = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
export const shape = (tag, attributes = {}, ...children) => build(document.createElementNS(SVG, tag), attributes, children);
export const span = (...children) => node("span", {}, ...children);

/** The arrays of a trace as numbers, flat, and their shapes, by name. */
export function unpackArrays(payload) {
  const arrays = {}, shapes = {};
  for (const [name, { dtype, shape: axes, scale = 1, data }] of Object.entries(payload.arrays)) {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    arrays[name] = Float64Array.from(new TYPES[dtype](bytes.buffer), (value) => value * scale);
    shapes[name] = axes;
  }
  return { arrays, shapes };
}

/** Is the page dark? Sphinx themes, JupyterLab, VS Code and Colab say so in attributes; else the system does. */
export function darkTheme() {
  const page = document.documentElement, body = document.body;
  if (page.dataset.theme) return page.dataset.theme === "dark";
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false";
  if (body.dataset.vscodeThemeKind) return body.dataset.vscodeThemeKind.includes("dark");
  return page.getAttribute("theme") === "dark" || matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Call `draw` whenever the theme may have changed. Returns what ends that. */
function onTheme(draw) {
  const themes = new MutationObserver(draw), system = matchMedia("(prefers-color-scheme: dark)");
  const attributeFilter = ["data-theme", "theme", "data-jp-theme-light", "data-vscode-theme-kind"];
  for (const page of [document.documentElement, document.body]) themes.observe(page, { attributeFilter });
  system.addEventListener("change", draw);
  return () => { themes.disconnect(); system.removeEventListener("change", draw); };
}

/** A labelled slider: its input, the element that shows its value, and the row of all; `${prefix}-setting` is its class. */
export function slider(id, prefix, label, attributes, change) {
  const input = node("input", { type: "range", id, ...attributes, oninput: () => change(Number(input.value)) });
  const value = node("span", { class: `${prefix}-value`, "aria-hidden": "true" }); // the slider itself says it
  return { input, value, row: node("div", { class: `${prefix}-setting` }, node("label", { for: id }, label), value, input) };
}

/** A button that plays and pauses. begin(): before it plays; next(): every `pause` ms, whether there is more;
    changed(plays): now it does, or not. Returns { button, play, toggle }; play(false) stops it. */
export function player(prefix, pause, { begin, next, changed }) {
  let timer = null;
  const path = shape("path"), button = node("button", { type: "button", class: `${prefix}-play`, onclick: () => toggle() },
    shape("svg", { viewBox: "0 0 14 14", "aria-hidden": "true" }, path));
  const play = (plays) => {
    clearInterval(timer);
    timer = plays ? setInterval(() => { if (!next()) play(false); }, pause) : null;
    if (plays) begin();
    button.setAttribute("aria-label", plays ? "Pause" : "Play");
    path.setAttribute("d", plays ? PAUSE : PLAY);
    changed(plays);
  };
  const toggle = () => play(timer === null);
  return { button, play, toggle };
}

/** Put a viewer on the page and keep it drawn: `draw` in another theme, `resize` at another size, if given. Returns what
    takes it away again, after `leave`. */
export function keepDrawn(el, root, draw, { resize = null, leave = () => {} } = {}) {
  const forgetTheme = onTheme(draw), sizes = resize && new ResizeObserver(resize);
  el.replaceChildren(root);
  draw();
  sizes?.observe(root);
  return () => { leave(); forgetTheme(); sizes?.disconnect(); root.remove(); };
}

/** Let a handle be dragged in its plane, and be put where the plane is clicked; where there is `keyed`, keys move it, too.
    drag(event): the pointer is there. keyed(event): what a key does, or nothing. story: a live region that tells at once
    and so is silent meanwhile, if there is one; draw: tells it at the end. */
export function draggable(plane, handle, { drag, keyed = () => null, story = null, draw = () => {} }) {
  handle.addEventListener("pointerdown", (event) => {
    handle.setPointerCapture(event.pointerId);
    story?.setAttribute("aria-live", "off"); // not a word for every pixel
  });
  handle.addEventListener("pointermove", (event) => { if (handle.hasPointerCapture(event.pointerId)) drag(event); });
  handle.addEventListener("lostpointercapture", () => {
    story?.setAttribute("aria-live", "polite");
    story?.replaceChildren();
    draw();
  });
  plane.addEventListener("click", (event) => { if (!handle.contains(event.target)) drag(event); });
  handle.addEventListener("keydown", (event) => {
    const action = keyed(event);
    if (!action || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  });
}

// ---- For eyes, ears and keys alike ----------------------------------------------------------------------------------

/** Marks of lines and points, around (0, 0): their shape tells them apart, whatever their colours. */
export const MARKS = { circle: "M-6 0a6 6 0 1 0 12 0a6 6 0 1 0-12 0z", square: "M-5.5-5.5h11v11h-11z", diamond: "M0-8L8 0 0 8-8 0z" };

/** A line and its mark, if it has one, for a legend. */
export const lineSample = (line, mark = null, path = "") => shape("svg", { class: "em-key", viewBox: "0 0 40 16", "aria-hidden": "true" },
  shape("path", { class: line, d: "M0 8H40" }), ...(mark ? [shape("path", { class: mark, d: path, transform: "translate(20 8) scale(0.8)" })] : []));

/** The one live region of a viewer, which the eye does not see. tell(...sentences): once nothing has changed for a
    moment, those that are not what they were are read aloud. The first ones are on the page when it opens: not read. */
export function speaker(pause = 600) {
  const hidden = { position: "absolute", width: "1px", height: "1px", margin: 0, overflow: "hidden", "clip-path": "inset(50%)", "white-space": "nowrap" };
  const region = node("p", { role: "status", style: hidden });
  let told = null, waiting = null;
  const tell = (...sentences) => {
    told ??= sentences;
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const fresh = sentences.filter((each, i) => each !== told[i]);
      told = sentences;
      if (fresh.length) region.textContent = fresh.join(" ");
    }, pause);
  };
  return { region, tell };
}

/** A list of buttons, one of which is chosen: one stop of the tab key, arrows (of a vertical one: up and down alone), Home
    and End move within it, Enter and space choose. fill(buttons, chosen): each has a `data-key`, the chosen one's is given; the focus is not lost. */
export function listbox(attributes) {
  const list = node("div", { role: "listbox", ...attributes });
  const stopAt = (stop) => { for (const each of list.children) each.tabIndex = each === stop ? 0 : -1; };
  list.addEventListener("keydown", (event) => {
    const { target: { nextElementSibling: next, previousElementSibling: previous }, key } = event;
    const sideways = attributes["aria-orientation"] === "vertical" ? {} : { ArrowRight: next, ArrowLeft: previous };
    const places = { ...sideways, ArrowDown: next, ArrowUp: previous, Home: list.firstElementChild, End: list.lastElementChild };
    if (!(key in places) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (!places[key]) return; // at the end
    stopAt(places[key]);
    places[key].focus();
  });
  const fill = (buttons, chosen) => {
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    if (list.children.length !== buttons.length || buttons.some((each) => each.parentNode !== list)) list.replaceChildren(...buttons);
    for (const each of buttons) {
      each.setAttribute("role", "option");
      each.setAttribute("aria-selected", String(each.dataset.key === chosen));
    }
    const stop = buttons.find((each) => each.dataset.key === focused) ?? buttons.find((each) => each.dataset.key === chosen) ?? buttons[0];
    stopAt(stop);
    if (focused !== null && stop !== document.activeElement) stop?.focus({ preventScroll: true });
  };
  return { list, fill };
}

/** What is drawn, as tables that open on a click or a key. tables(): [{ caption, heads, rows }] of texts, asked for only
    while they are open. Returns { place, draw }. */
export function folded(title, tables) {
  const body = node("div", { class: "em-tables", role: "region", "aria-label": title, tabindex: 0 });
  const place = node("details", { class: "em-folded" }, node("summary", {}, title), body);
  const row = ([first, ...others]) => node("tr", {}, node("th", { scope: "row" }, first), ...others.map((each) => node("td", {}, each)));
  const draw = () => {
    if (!place.open) return;
    body.replaceChildren(...tables().map(({ caption, heads, rows }) => node("table", {}, node("caption", {}, caption),
      node("thead", {}, node("tr", {}, ...heads.map((head) => node("th", { scope: "col" }, head)))), node("tbody", {}, ...rows.map(row)))));
  };
  place.addEventListener("toggle", draw);
  return { place, draw };
}

/** Call `mount(place, start)` for each view of a static page that is not mounted yet: its script follows its place. */
export function mountEach(prefix, mount) {
  for (const script of document.querySelectorAll(`script.${prefix}-start:not([data-mounted])`)) {
    script.dataset.mounted = "";
    mount(script.previousElementSibling, JSON.parse(script.textContent));
  }
}

/** The `render` of a live notebook: a view of the trait `content`, mounted anew when that changes; `traits` follow the
    reader and lead the view. `mount` is given (place, content, { ...traits, onChange }) and returns { show, destroy }. */
export function renderer(mount, content, traits) {
  return ({ model, el }) => {
    let view = null;
    const now = () => Object.fromEntries(traits.map((name) => [name, model.get(name)]));
    const onChange = (change) => { for (const name of traits) model.set(name, change[name]); model.save_changes(); };
    const start = () => { view?.destroy(); view = mount(el, model.get(content), { ...now(), onChange }); };
    const follow = () => view.show(now());
    const events = [[`change:${content}`, start], ...traits.map((name) => [`change:${name}`, follow])];
    start();
    for (const [name, handler] of events) model.on(name, handler);
    return () => { for (const [name, handler] of events) model.off(name, handler); view.destroy(); };
  };
}
