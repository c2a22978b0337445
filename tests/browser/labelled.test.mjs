// The viewer of a labelled memory as a reader meets it: pages of its own, from file:// with the network off.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { unpack } from "../../lib/inspector/labelled.js";
import { violations } from "./book.mjs";
import { makePages } from "./own_pages.mjs";

let made, expected;
before(async () => {
  made = await makePages("labelled_pages.py", ".labelled-memory");
  expected = made.expected;
});
after(() => made?.close());
const on = (...how) => made.on(...how);

const text = (root, part) => root.locator(part).innerText();
const step = async (root) => Number(await root.getAttribute("data-step"));
const fixed = (value, digits) => value.toFixed(digits).replace("-", "−");
const percent = (value) => `${value > 0 && value < 0.0005 ? "< 0.1" : (100 * value).toFixed(1)} %`;
const rank = (value) => (Number.isInteger(value) ? String(value) : value.toFixed(1));
const go = (root, t) => root.getByRole("slider", { name: "Step" }).fill(String(t));

/** Pairs of pieces of text that lie on each other. */
const overlaps = (page) => page.evaluate(() => {
  const walker = document.createTreeWalker(document.querySelector(".labelled-memory"), NodeFilter.SHOW_TEXT), boxes = [];
  while (walker.nextNode()) {
    if (!walker.currentNode.textContent.trim()) continue;
    const cut = walker.currentNode.parentElement.closest(".la-token, .la-name")?.getBoundingClientRect(); // what an ellipsis hides
    const range = document.createRange();
    range.selectNodeContents(walker.currentNode);
    for (const box of range.getClientRects()) {
      boxes.push([walker.currentNode, { left: box.left, right: Math.min(box.right, cut?.right ?? Infinity), top: box.top, bottom: box.bottom }]);
    }
  }
  const found = [];
  boxes.forEach(([node, a], i) => boxes.slice(i + 1).forEach(([other, b]) => {
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left), high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (node !== other && wide > 1 && high > 4) found.push(`${node.textContent} | ${other.textContent}`);
  }));
  return found;
});

for (const width of [320, 390, 768, 1400]) {
  for (const colorScheme of ["light", "dark"]) {
    test(`${width} pixels wide, ${colorScheme}: it fits, no text on another, nothing serious for axe`, async () => {
      for (const name of ["choices.html", "full.html"]) {
        await on(name, async (page, root) => {
          assert.equal(await root.getAttribute("data-theme"), colorScheme);
          assert.ok(await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth) <= 0);
          assert.deepEqual(await overlaps(page), []);
          assert.deepEqual(await violations(page), []);
        }, { width, colorScheme });
      }
    });
  }
}

test("each step says what was expected, why it was written or not, and what is expected after", () => on("choices.html", async (page, root) => {
  const trace = expected.choices[expected.start];
  const what = { none: "Nothing is written", label: "it gets a row", cell: "a cell of its own", added: "h is added to" };
  assert.deepEqual(new Set(trace.kinds), new Set(Object.keys(what)), "the test would miss a kind");
  for (let t = 0; t < trace.revealed.length; t++) {
    await go(root, t);
    const story = await text(root, ".la-story"), [before, after] = trace.probability[t];
    assert.ok(story.startsWith(`t = ${t}: after `), story);
    for (const part of [`comes «${trace.revealed[t]}»`, `it had ${percent(before)}, rank ${rank(trace.rank[t][0])}`, what[trace.kinds[t]],
      `The margin, ${fixed(trace.margin[t], 2)}, is ${trace.written[t] ? "too small (less than 0.5)" : "large enough (at least 0.5)"}`,
      `Asked again right after: ${percent(after)}, rank ${rank(trace.rank[t][1])}.`]) assert.ok(story.includes(part), `${story} | ${part}`);
    assert.deepEqual(await root.locator(".la-answers .la-true .la-numbers span").allInnerTexts(), [percent(before), `→ ${percent(after)}`]);
  }
}));

test("the stream names each step's token, rank and write, in words too", () => on("choices.html", async (page, root) => {
  const trace = expected.choices[expected.start], signs = { none: "·", added: "+", cell: "◆", label: "★" };
  const frames = await root.locator(".la-frame").evaluateAll((all) => all.map((frame) =>
    [frame.querySelector(".la-token").textContent, frame.querySelector(".la-foot").dataset.sign, frame.getAttribute("aria-label")]));
  frames.forEach(([token, sign, label], t) => {
    assert.equal(token, trace.revealed[t]);
    assert.equal(sign, signs[trace.kinds[t]]);
    assert.ok(label.startsWith(`step ${t}: ${trace.revealed[t]}, rank ${rank(trace.rank[t][0])} before`), label);
  });
}));

test("the memory shows the cells of each label as the prediction found them, and the write", () => on("full.html", async (page, root) => {
  const { held, weights, count, kinds, revealed } = expected.full;
  for (const t of [0, 4, 12, 30, 44]) {
    await go(root, t);
    const rows = await root.locator(".la-row").evaluateAll((all) => all.map((row) => [row.querySelector(".la-name").firstChild.textContent,
      ...[...row.querySelectorAll(".la-cell .la-numbers")].map((cell) => cell.textContent.replace(/ (∠|new).*/, ""))]));
    const seen = Object.fromEntries(rows.map(([name, ...cells]) => [name, cells]));
    held[t].forEach((name, i) => {
      const now = seen[name];
      if (!now) return assert.ok(kinds[t] === "label" && !held[t + 1].includes(name), `${name} is evicted in this step`);
      weights[t][i].slice(0, count[t][i]).forEach((weight, c) => assert.ok(now[c].startsWith(fixed(weight, 1)), `${now[c]} is not ${weight}`));
    });
    if (kinds[t] !== "none") {
      const i = held[t + 1].indexOf(revealed[t]);
      weights[t + 1][i].slice(0, count[t + 1][i]).forEach((weight, c) => assert.ok(seen[revealed[t]][c].endsWith(`→ ${fixed(weight, 1)}`)));
    }
  }
}));

test("it tells which steps a cell is made of, as Python does", async () => {
  for (const each of [...expected.choices, expected.full]) {
    const trace = unpack(each.json);
    each.made.forEach((cells, row) => assert.deepEqual(
      trace.madeOf(row, trace.T - 1).map((parts) => parts.map(({ step }) => step)), cells.map((parts) => parts.map(([t]) => t))));
    each.made.flat(2).forEach(([, share]) => assert.ok(share > 0 && share <= 1.0001));
    assert.ok(Math.abs(trace.curve(0).at(-1) - each.log_perplexity[0]) < 1e-4);
    assert.ok(Math.abs(trace.curve(1).at(-1) - each.log_perplexity[1]) < 1e-4);
  }
});

test("without a kernel the settings switch among what was recorded, and the curve is drawn beside the start's", () => on("choices.html", async (page, root) => {
  const lines = () => root.locator(".la-chart").first().locator(".la-line").count();
  assert.equal(await lines(), 2);
  const start = fixed(expected.choices[expected.start].log_perplexity[0], 3);
  let last = "";
  for (const [margin, theta, cells, index] of [["0", "combiner", "2", 3], ["3", "0.6", "1", 8], ["0.5", "combiner", "2", expected.start]]) {
    for (const [group, value] of [["margin", margin], ["θ", theta], ["cells a label", cells]]) {
      await root.getByRole("group", { name: group, exact: true }).getByRole("radio", { name: value, exact: true }).check();
    }
    const result = await text(root, ".la-result"), trace = expected.choices[index];
    assert.ok(result.startsWith(`Log-perplexity of this stream ${fixed(trace.log_perplexity[0], 3)}`), result);
    assert.ok(result.includes(`${trace.written.filter(Boolean).length} writes in 45 steps`), result);
    assert.equal(result.includes(`with the setting at the start ${start}`), index !== expected.start);
    assert.equal(await lines(), index === expected.start ? 2 : 3);
    assert.equal(await step(root), 7, "the step stays");
    const label = await root.locator(".la-chart svg").first().getAttribute("aria-label");
    assert.ok(label !== last && label.includes(fixed(trace.log_perplexity[0], 3)));
    last = label;
  }
}));

test("a label is followed, and let go; its steps lead to where it was written", () => on("full.html", async (page, root) => {
  assert.match(await text(root, ".la-about"), /Followed: place 3/);
  const other = root.locator(".la-row:not(.la-now)").first();
  const name = (await other.locator(".la-name").innerText()).replace(/ .$/, "").trim();
  await other.click();
  assert.ok((await text(root, ".la-about")).includes(`Followed: ${name.slice(0, 7)}`));
  assert.equal(await root.locator(".la-row[aria-selected=true]").count(), 1);
  await root.locator(".la-about .la-made .la-step").first().click();
  assert.ok(await step(root) < 44);
  await page.keyboard.press("Escape");
  assert.match(await text(root, ".la-about"), /^What came true/);
}));

test("the keyboard alone is enough", () => on("choices.html", async (page, root) => {
  await root.locator(".la-frame[aria-current=step]").focus();
  await page.keyboard.press("ArrowRight");
  assert.equal(await step(root), 8);
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-current")), "step");
  await page.keyboard.press("End");
  assert.equal(await step(root), 44);
  const stops = await root.locator(".la-row").evaluateAll((all) => all.filter((row) => row.tabIndex === 0).length);
  assert.equal(stops, 1, "one stop for the whole memory");
  await root.locator(".la-row").first().focus();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  const second = root.locator(".la-row").nth(1);
  assert.equal(await second.getAttribute("aria-selected"), "true");
  assert.ok(await second.evaluate((row) => row === document.activeElement), "the focus stays on it");
  await page.keyboard.press("ArrowLeft");
  assert.equal(await step(root), 43);
  const margin = root.getByRole("group", { name: "margin" }).getByRole("radio", { name: "0.5" });
  await margin.focus();
  await page.keyboard.press("ArrowRight");
  assert.equal(await step(root), 43, "arrows in the settings change the setting");
  assert.match(await text(root, ".la-result"), /with the setting at the start/);
}));

test("a click in a chart goes to its step, and playing goes on by itself", () => on("choices.html", async (page, root) => {
  const chart = root.locator(".la-chart svg").first(), box = await chart.boundingBox();
  await chart.click({ position: { x: box.width - 14, y: 60 } });
  assert.equal(await step(root), 44);
  await chart.click({ position: { x: 5, y: 60 } });
  assert.equal(await step(root), 0);
  await root.getByRole("button", { name: "Play" }).click();
  assert.equal(await root.locator(".la-story").getAttribute("aria-live"), "off");
  await page.waitForFunction(() => document.querySelector(".labelled-memory").dataset.step === "2");
  await root.getByRole("button", { name: "Pause" }).click();
  assert.equal(await root.locator(".la-story").getAttribute("aria-live"), "polite");
}));

test("in a live notebook it follows its model and tells it what the reader does", () => on("widget.html", async (page) => {
  const [one, two] = [expected.choices[expected.start].json, expected.choices[0].json];
  const content = (trace) => ({ settings: [], traces: [trace, one], picked: 0, reference: 1 });
  const result = await page.evaluate(async ([module, first, second]) => {
    const { default: widget } = await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })));
    const values = { content: first, step: 4, label: null }, listeners = {}, el = document.createElement("div"), saved = [];
    const model = {
      get: (name) => values[name], set(name, value) { values[name] = value; },
      save_changes: () => saved.push([values.step, values.label]),
      on: (name, handler) => (listeners[name] = handler), off: (name) => delete listeners[name],
    };
    const change = (name, value) => { values[name] = value; listeners[`change:${name}`](); };
    const stop = widget.render({ model, el });
    document.querySelector("#cell").append(el);
    const seen = () => el.querySelector(".labelled-memory").dataset.step;
    const states = [seen()];
    change("step", 9);
    states.push(seen());
    const slider = el.querySelector("input[type=range]");
    slider.value = 2;
    slider.dispatchEvent(new Event("input"));
    states.push(seen());
    el.querySelector(".la-row").click();
    const before = el.querySelector(".la-result").textContent;
    change("content", second);
    states.push(seen(), el.querySelectorAll(".labelled-memory").length);
    await new Promise((resolve) => setTimeout(resolve, 100));
    const drawn = el.querySelectorAll(".la-chart .la-line").length, moved = before !== el.querySelector(".la-result").textContent;
    stop();
    return { states, drawn, moved, last: saved.at(-1), left: [el.children.length, Object.keys(listeners).length] };
  }, [expected.module, content(one), content(two)]);
  assert.deepEqual(result.states, ["4", "9", "2", "2", 1]);
  assert.ok(result.moved && result.drawn >= 4 && result.last[0] === 2 && result.last[1] !== null);
  assert.deepEqual(result.left, [0, 0]);
}));

test("follows the theme of the page", () => on("choices.html", async (page, root) => {
  await page.evaluate(() => { document.documentElement.dataset.theme = "dark"; });
  await page.waitForFunction(() => document.querySelector(".labelled-memory").dataset.theme === "dark");
  assert.notEqual(await root.evaluate((element) => getComputedStyle(element).backgroundColor), "rgb(255, 255, 255)");
}));
