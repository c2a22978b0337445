// The memory inspector as a reader meets it: pages of its own, from file:// with the network off.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { violations } from "./book.mjs";
import { makePages } from "./own_pages.mjs";

let made, expected;
before(async () => {
  made = await makePages("inspector_pages.py", ".memory-inspector");
  expected = made.expected;
});
after(() => made?.close());
const on = (...how) => made.on(...how);

const picture = (canvas) => canvas.evaluate((element) => element.toDataURL());
const text = (root, part) => root.locator(part).innerText();
const step = async (root) => Number(await root.getAttribute("data-step"));
const shown = (value) => String(Number(value.toPrecision(4))).replace("-", "−");
const read = (root) => text(root, ".mi-reading");

/** The number that the trace has for a reading such as "t = 3, slot 5, read head 2: 0.0078 (…)". */
function truth(reading) {
  const [, t, slot, what, index, value] = reading.match(/^t = (\d+), slot (\d+), (\D+?) ?(\d*)(?: \(1: written next\))?: (\S+)/);
  const found = {
    "memory column": () => expected.memory[t][slot][index], "read head": () => expected.read_weights[t][index][slot],
    "write head": () => expected.write_weights[t][index][slot], usage: () => expected.usage[t][slot],
    "least used": () => Number(expected.least_used[t][slot]),
  }[what]();
  return { what, value, expected: shown(found) };
}

/** Pairs of pieces of text that lie on each other. */
const overlaps = (page) => page.evaluate(() => {
  const walker = document.createTreeWalker(document.querySelector(".memory-inspector"), NodeFilter.SHOW_TEXT), boxes = [];
  while (walker.nextNode()) {
    const range = document.createRange();
    range.selectNodeContents(walker.currentNode);
    if (!walker.currentNode.textContent.trim()) continue;
    for (const box of range.getClientRects()) boxes.push([walker.currentNode, box]);
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
      for (const name of ["one.html", "small.html", "split.html"]) {
        await on(name, async (page, root) => {
          if (name === "one.html") await root.locator(".mi-grid").click({ position: { x: 60, y: 100 } });
          assert.equal(await root.getAttribute("data-theme"), colorScheme);
          assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth), 0);
          for (const canvas of [".mi-grid", ".mi-episode"]) {
            const [box, outer] = [await root.locator(canvas).boundingBox(), await root.boundingBox()];
            assert.ok(box.width > 150 && box.x >= outer.x && box.x + box.width <= outer.x + outer.width, `${canvas} fits`);
          }
          assert.deepEqual(await overlaps(page), []);
          assert.deepEqual(await violations(page), []);
        }, { width, colorScheme });
      }
    });
  }
}

test("it says which earlier writes are read most and least", () => on("split.html", async (page, root) => {
  const t = 12, { read_weights: reads, labels } = expected.split, slots = reads[0][0].length;
  const shares = reads[t][0].slice(0, t).map((weight) => weight * slots); // slot i was written at step i: the gate is half open
  const lists = await root.locator(".mi-now .mi-columns .mi-items").evaluateAll((all) =>
    all.map((list) => [...list.querySelectorAll(".mi-item")].map((item) => item.innerText.replace(/\s+/g, " "))));
  assert.deepEqual(lists.map((list) => list.length), [3, 3]);
  const seen = lists.map((list) => list.map((text) => Number(text.match(/([\d.]+) ×/)[1])));
  const sorted = [...shares].sort((a, b) => b - a);
  seen[0].forEach((value, i) => assert.ok(Math.abs(value - sorted[i]) < 0.01, `${value} is not ${sorted[i]}`));
  seen[1].forEach((value, i) => assert.ok(Math.abs(value - sorted.at(-1 - i)) < 0.01, `${value} is not ${sorted.at(-1 - i)}`));
  const least = shares.indexOf(sorted.at(-1));
  assert.ok((await text(root, ".mi-story")).includes(`and that of t = ${least}, class ${labels[least]}, least (`));
}));

test("with few writes none is read both most and least, and it says where all get less than an even share", () => on("split.html", async (page, root) => {
  const slots = expected.split.read_weights[0][0].length;
  for (const [t, most, least] of [[1, 1, 0], [2, 1, 1], [3, 2, 1], [5, 3, 2]]) {
    await root.getByRole("slider", { name: "Step" }).fill(String(t));
    const lists = await root.locator(".mi-now .mi-columns .mi-items").evaluateAll((all) =>
      all.map((list) => [...list.querySelectorAll(".mi-item")].map((item) => item.innerText.match(/t = (\d+)/)[1])));
    assert.deepEqual(lists.map((list) => list.length), [most, least]);
    assert.equal(new Set(lists.flat()).size, most + least);
    const below = expected.split.read_weights[t][0].slice(0, t).every((weight) => weight * slots < 1);
    assert.equal((await text(root, ".mi-story")).includes("All of them get less than an even share"), below);
  }
}));

test("the slider changes the pictures and says what happens at its step", () => on("one.html", async (page, root) => {
  assert.equal(await step(root), 3);
  const canvases = [root.locator(".mi-grid"), root.locator(".mi-episode")];
  const before = await Promise.all(canvases.map(picture));
  for (const t of [17, 0, 49]) {
    await root.getByRole("slider", { name: "Step" }).fill(String(t));
    assert.equal(await step(root), t);
    const story = await text(root, ".mi-story"), verdict = expected.right[t] ? "right" : `wrong: it is ${expected.labels[t]}`;
    assert.ok(story.startsWith(`t = ${t}: the `) && story.includes(`image of class ${expected.labels[t]}.`), story);
    assert.ok(story.includes(`answers ${expected.answers[t]} (`) && story.includes(`, ${verdict}.`), story);
    const shares = await root.locator(".mi-percent").allInnerTexts();
    assert.deepEqual(shares, expected.probabilities[t].map((p) => `${(100 * p).toFixed(1)} %`));
    for (const [i, canvas] of canvases.entries()) assert.notEqual(await picture(canvas), before[i]);
  }
  const slider = root.getByRole("slider", { name: "Step" });
  assert.match(await slider.getAttribute("aria-valuetext"), /^49 of 49, class \d, answered (right|wrong)$/);
}));

test("the picture is sharp: as many pixels as the screen has", () => on("one.html", async (page, root) => {
  const [pixels, box] = [await root.locator(".mi-grid").evaluate(({ width }) => width), await root.locator(".mi-grid").boundingBox()];
  assert.ok(Math.abs(pixels - 2 * box.width) <= 1);
}, { scale: 2 }));

test("arrow keys, Home and End go through the steps wherever the focus is", () => on("one.html", async (page, root) => {
  for (const place of [".mi-slider", ".mi-play", ".mi-frame[tabindex='0']", ".mi-choice input"]) {
    await root.locator(place).focus();
    await page.keyboard.press("Home");
    assert.equal(await step(root), 0, place);
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowLeft");
    assert.equal(await step(root), 1, place);
    await page.keyboard.press("End");
    assert.equal(await step(root), 49, place);
  }
  await root.locator(".mi-title").click();
  await page.keyboard.press("ArrowLeft");
  assert.equal(await step(root), 48, "after a click on it");
}));

test("every image is a button to its step, and one tab stop serves them all", () => on("one.html", async (page, root) => {
  const frames = root.locator(".mi-frame");
  assert.equal(await frames.count(), 50);
  await frames.nth(21).click();
  assert.equal(await step(root), 21);
  assert.equal(await root.locator(".mi-frame[tabindex='0']").count(), 1);
  await page.keyboard.press("ArrowRight");
  const focused = await page.evaluate(() => document.activeElement.getAttribute("aria-label"));
  assert.equal(focused, `step 22, class ${expected.labels[22]}, answered ${expected.answers[22]}, ${expected.right[22] ? "right" : "wrong"}`);
  assert.equal(await frames.nth(22).getAttribute("aria-current"), "step");
}));

test("play goes on step by step, pauses, stops at the end; nothing plays by itself", () => on("one.html", async (page, root) => {
  await page.waitForTimeout(1100);
  assert.equal(await step(root), 3, "it waits for the reader");
  await root.getByRole("button", { name: "Play" }).click();
  await page.waitForFunction(() => Number(document.querySelector(".memory-inspector").dataset.step) >= 5, null, { timeout: 5000 });
  await page.keyboard.press("Space");
  assert.equal(await root.locator(".mi-play").getAttribute("aria-label"), "Play");
  const paused = await step(root);
  await page.waitForTimeout(1100);
  assert.equal(await step(root), paused);
  await root.getByRole("slider", { name: "Step" }).fill("48");
  await page.keyboard.press("Space");
  await page.waitForFunction(() => document.querySelector(".mi-play").getAttribute("aria-label") === "Play", null, { timeout: 5000 });
  assert.equal(await step(root), 49);
}));

test("arrow keys in the memory read the exact value of each cell", () => on("one.html", async (page, root) => {
  const grid = root.locator(".mi-grid"), seen = new Set();
  await grid.focus();
  for (let i = 0; i < 55; i++) {
    const { what, value, expected: stored } = truth(await read(root));
    assert.equal(value, stored, await read(root));
    seen.add(what);
    await page.keyboard.press(i % 5 ? "ArrowRight" : "ArrowDown");
    if (i % 5) continue;
    await page.keyboard.press("ArrowRight");
  }
  assert.deepEqual([...seen].sort(), ["least used", "memory column", "read head", "usage", "write head"]);
  assert.equal(await step(root), 3, "the step stays");
  await page.keyboard.press("PageDown");
  await page.keyboard.press("ArrowLeft");
  const { value, expected: stored } = truth(await read(root));
  assert.equal(value, stored);
  assert.equal(await root.locator("output.mi-reading").count(), 1, "an output is a polite live region");
}));

test("pointing reads the exact value of a cell, at every step", () => on("one.html", async (page, root) => {
  const cells = new Set();
  for (const t of [0, 20, 49]) {
    await root.getByRole("slider", { name: "Step" }).fill(String(t));
    await root.locator(".mi-grid").scrollIntoViewIfNeeded();
    const box = await root.locator(".mi-grid").boundingBox();
    for (let k = 0; k < 40; k++) {
      const x = box.x + box.width * ((k * 0.137) % 1), y = box.y + 30 + (box.height - 40) * ((k * 0.291) % 1);
      await page.mouse.move(x, y);
      const reading = await read(root);
      if (!reading.startsWith(`t = ${t},`)) continue;
      const { value, expected: stored } = truth(reading);
      assert.equal(value, stored, reading);
      cells.add(reading);
    }
  }
  assert.ok(cells.size > 60, `${cells.size} cells were read`);
}));

test("pointing at the episode reads what was written and read", () => on("one.html", async (page, root) => {
  const box = await root.locator(".mi-episode").boundingBox();
  await page.mouse.move(box.x + box.width * 0.6, box.y + box.height * 0.5);
  const [, t, slot, written, reads] = (await read(root)).match(/^t = (\d+), slot (\d+): written (\S+), read (\S+) \(/);
  const over = (weights) => weights[t].reduce((sum, head) => sum + head[slot], 0);
  assert.ok(Math.abs(Number(written) - over(expected.write_weights)) < 1e-3 && Math.abs(Number(reads) - over(expected.read_weights)) < 1e-3);
  await page.mouse.click(box.x + box.width * 0.6, box.y + box.height * 0.5);
  assert.equal(await step(root), Number(t));
  assert.equal(await root.getAttribute("data-slot"), slot);
}));

test("picking a slot shows when it was written, by which image, and leads there", () => on("one.html", async (page, root) => {
  const slot = expected.written.findIndex((writes) => writes.length > 1);
  assert.match(await text(root, ".mi-slot"), /^Pick a slot/);
  await root.locator(".mi-grid").focus();
  for (let i = 0; i < slot; i++) await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  assert.equal(await root.getAttribute("data-slot"), String(slot));
  const card = root.locator(".mi-slot .mi-card", { hasText: "was written" }), writes = card.locator("button");
  const found = (await writes.allInnerTexts()).map((line) => line.replace(/\s+/g, " ").match(/^t = (\d+) (\d) .*weight (\S+)$/).slice(1).map(Number));
  assert.deepEqual(found, expected.written[slot].map(([t, weight]) => [t, expected.labels[t], Number(weight.toPrecision(2))]));
  assert.equal(await writes.first().locator("canvas").count(), 1, "with the image");
  await writes.last().click();
  assert.equal(await step(root), expected.written[slot].at(-1)[0]);
  assert.ok(await writes.last().evaluate((element) => element === document.activeElement), "the focus stays");
  await page.keyboard.press("Escape");
  assert.equal(await root.getAttribute("data-slot"), "");
  await page.keyboard.press("Home");
  assert.equal(await step(root), 0, "the keys still work");
}));

test("a slot in the list of the step is picked by a click", () => on("one.html", async (page, root) => {
  await root.getByRole("slider", { name: "Step" }).fill("30");
  const entry = root.locator(".mi-now .mi-item").first(), slot = (await entry.innerText()).match(/slots? (\d+)/)[1];
  await entry.click();
  assert.equal(await root.getAttribute("data-slot"), slot);
  assert.ok((await root.locator(".mi-slot").innerText()).includes(`Slot ${slot} was written`));
}));

test("the difference from the mean slot is another picture of the same numbers", () => on("one.html", async (page, root) => {
  const before = await picture(root.locator(".mi-grid"));
  await root.getByRole("checkbox").check();
  assert.notEqual(await picture(root.locator(".mi-grid")), before);
  await root.locator(".mi-grid").focus();
  const { value, expected: stored } = truth(await read(root));
  assert.equal(value, stored);
}));

test("the theme of the page is followed at once", () => on("one.html", async (page, root) => {
  const look = async () => [await picture(root.locator(".mi-grid")), await root.evaluate((element) => getComputedStyle(element).backgroundColor)];
  const light = await look();
  for (const [attribute, dark, bright] of [["html data-theme", "dark", "light"], ["body data-jp-theme-light", "false", "true"]]) {
    const [element, name] = attribute.split(" ");
    const set = (value) => page.evaluate(([tag, key, to]) => document.querySelector(tag).setAttribute(key, to), [element, name, value]);
    await set(dark);
    await page.waitForFunction(() => document.querySelector(".memory-inspector").dataset.theme === "dark");
    const [canvas, background] = await look();
    assert.notEqual(canvas, light[0]);
    assert.notEqual(background, light[1]);
    await set(bright);
    await page.waitForFunction(() => document.querySelector(".memory-inspector").dataset.theme === "light");
    assert.deepEqual(await look(), light);
    await page.evaluate(([tag, key]) => document.querySelector(tag).removeAttribute(key), [element, name]);
  }
  await page.emulateMedia({ colorScheme: "dark" });
  await page.waitForFunction(() => document.querySelector(".memory-inspector").dataset.theme === "dark");
}));

test("two inspectors on a page do not disturb each other", () => on("two.html", async (page, roots) => {
  assert.equal(await roots.count(), 2);
  const [first, second] = [roots.nth(0), roots.nth(1)];
  assert.deepEqual([await step(first), await step(second), await second.getAttribute("data-slot")], [1, 2, "1"]);
  await second.getByRole("slider", { name: "Step" }).fill("9");
  assert.deepEqual([await step(first), await step(second)], [1, 9]);
}));

test("a learner without memory has images and answers", () => on("none.html", async (page, root) => {
  await root.getByRole("slider", { name: "Step" }).fill("7");
  assert.match(await text(root, ".mi-story"), /^t = 7: .*answers/);
  assert.ok((await root.innerText()).includes("no memory to show"));
  assert.equal(await root.locator(".mi-frame").count(), 50);
}));

test("features and labels stand side by side, each with its own values", () => on("split.html", async (page, root) => {
  const grid = root.locator(".mi-grid"), seen = new Set();
  await grid.focus();
  for (const key of ["ArrowRight", "ArrowDown", ...Array(45).fill("ArrowRight")]) {
    await page.keyboard.press(key);
    const reading = await read(root), found = reading.match(/^t = 12, slot (\d+), (features|labels) column (\d+): (\S+)$/);
    assert.ok(found, reading);
    const [, slot, which, column, value] = found;
    assert.equal(value, shown(expected.split[which === "labels" ? "label_memory" : "memory"][12][slot][column]), reading);
    seen.add(which);
  }
  assert.deepEqual([...seen], ["features", "labels"]);
}));

test("a label is followed from the image to where its features went", () => on("split.html", async (page, root) => {
  const before = expected.split.labels[11];
  assert.ok((await text(root, ".mi-story")).includes(`and label ${before}, of the image at t = 11, to where the features of that image went.`));
  const card = await text(root, ".mi-now .mi-wide");
  assert.match(card.replace(/\s+/g, " "), new RegExp(`Writes its features to slot 12 weight [\\d.]+ .*Writes the label ${before} of t = 11 to slot 11`));
  assert.deepEqual(await root.locator(".mi-slot canvas[role=img]").evaluateAll((all) => all.map((each) => each.getAttribute("aria-label"))),
    ["The features of slot 11 at each step", "The labels of slot 11 at each step"]);
}));

test("the laboratory without a kernel shows its result and the inspector", () => on("laboratory.html", async (page, root) => {
  assert.ok((await page.locator("main").innerText()).includes("Labels 0 and 1 are swapped from t = 20 on"));
  assert.deepEqual(await violations(page), []);
  const marked = await root.locator(".mi-frame", { hasText: "≠" }).evaluateAll((all) => all.map((frame) => frame.getAttribute("aria-label")));
  assert.deepEqual(marked.map((name) => Number(name.match(/^step (\d+), .*, before \d$/)[1])), expected.changed);
  assert.ok(marked.length > 0);
  assert.equal(await step(root), expected.changed[0]);
  assert.match(await text(root, ".mi-story"), /Without the change it answered \d\./);
}));

/** Stands for a notebook: makes a widget of the module, with a model whose changes can be seen and made. */
const host = async ([module, trace]) => {
  const { default: widget } = await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })));
  const values = { trace, step: 4, slot: null }, listeners = {}, el = document.createElement("div"), saved = [];
  const model = {
    get: (name) => values[name],
    set(name, value) { values[name] = value; },
    save_changes: () => saved.push([values.step, values.slot]),
    on: (name, handler) => (listeners[name] = handler),
    off: (name) => delete listeners[name],
    change(name, value) { values[name] = value; listeners[`change:${name}`](); },
  };
  Object.assign(window, { el, model, saved, listeners, stop: widget.render({ model, el }) });
};

test("in a live notebook it follows its model and tells it what the reader does", () => on("widget.html", async (page) => {
  await page.evaluate(host, [expected.module, expected.trace]);
  const result = await page.evaluate(() => {
    document.querySelector("#cell").append(el);
    const seen = () => { const { step, slot } = el.querySelector(".memory-inspector").dataset; return `${step}/${slot}`; };
    const states = [seen()];
    model.change("step", 7);
    model.change("slot", 3);
    states.push(seen());
    const slider = el.querySelector("input[type=range]");
    slider.value = 2;
    slider.dispatchEvent(new Event("input"));
    states.push(seen());
    model.change("trace", { ...model.get("trace"), title: "another" });
    states.push(seen(), el.querySelector(".mi-title").textContent, el.querySelectorAll(".memory-inspector").length);
    stop();
    return { states, last: saved.at(-1), left: [el.children.length, Object.keys(listeners).length] };
  });
  assert.deepEqual(result, { states: ["4/", "7/3", "2/3", "2/3", "another", 1], last: [2, 3], left: [0, 0] });
}));

test("drawn before a notebook puts it on the page, it is the same picture", () => on("widget.html", async (page) => {
  await page.evaluate(host, [expected.module, expected.trace]);
  await page.waitForTimeout(200);
  await page.evaluate(() => document.querySelector("#cell").append(el));
  await page.waitForFunction(() => el.querySelector(".mi-grid").width !== 300);
  const late = await picture(page.locator(".mi-grid"));
  await page.evaluate(() => model.change("trace", { ...model.get("trace") }));
  assert.equal(await page.locator(".memory-inspector").count(), 1);
  assert.equal(late, await picture(page.locator(".mi-grid")));
}));
