// What the inspectors share: elements, arrays of a trace, the theme of the page, and how a view gets onto a page.
// `lib/inspector/files.py` puts this text where a module asks for it, so that each page stands alone.

const SVG = "http://www.w3.org/2000/svg";
const TYPES = { uint8: Uint8Array, int8: Int8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array };
export const PLAY = "M3 1.5v11l9-5.5z", PAUSE = "M3 2h3v10H3zM8 2h3v10H8z";

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
export const range = (count) => Array.from({ length: count }, (_, i) => i);
export const sum = (values) => values.reduce((a, b) => a + b, 0);
export const fixed = (value, digits = 2) => (Number(value.toFixed(digits)) || 0).toFixed(digits).replace("-", "−");

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
export function onTheme(draw) {
  const themes = new MutationObserver(draw), system = matchMedia("(prefers-color-scheme: dark)");
  const attributeFilter = ["data-theme", "theme", "data-jp-theme-light", "data-vscode-theme-kind"];
  for (const page of [document.documentElement, document.body]) themes.observe(page, { attributeFilter });
  system.addEventListener("change", draw);
  return () => { themes.disconnect(); system.removeEventListener("change", draw); };
}

/** Let a handle be dragged in its plane, be put where the plane is clicked, and be moved by keys.
    drag(event): the pointer is there. keyed(event): what a key does, or nothing. story: a live region, silent meanwhile;
    draw: tells it at the end. */
export function draggable(plane, handle, { drag, keyed, story, draw }) {
  handle.addEventListener("pointerdown", (event) => {
    handle.setPointerCapture(event.pointerId);
    story.setAttribute("aria-live", "off"); // not a word for every pixel
  });
  handle.addEventListener("pointermove", (event) => { if (handle.hasPointerCapture(event.pointerId)) drag(event); });
  handle.addEventListener("lostpointercapture", () => {
    story.setAttribute("aria-live", "polite");
    story.textContent = "";
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
