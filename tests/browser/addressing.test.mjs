// Content addressing by hand: its numbers are those of lib.memory (addressing.json, written by tests/inspector/
// test_addressing.py), and the widget on the page obeys pointer and keyboard.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe as group, test } from "node:test";
import { describe, EPSILON, leastUsed, lookUp, writeKey } from "../../lib/inspector/addressing.js";
import { launch, open } from "./book.mjs";
import { python } from "./own_pages.mjs";

const { epsilon, cases } = JSON.parse(readFileSync(new URL("addressing.json", import.meta.url), "utf8"));
const PAGE = "book/what-is-a-memory.html";

function close(one, other) {
  assert.equal(one.length, other.length);
  one.forEach((value, i) => {
    if (Array.isArray(value)) close(value, other[i]);
    else assert.ok(Math.abs(value - other[i]) <= 1e-12 * Math.max(1, Math.abs(value)), `${value} and ${other[i]}`);
  });
}

group("the numbers", () => {
  test("the constant is that of lib", () => assert.equal(EPSILON, epsilon));

  cases.forEach(({ start, look, write, words }, i) => {
    test(`case ${i}: look up, write, say`, () => {
      const before = structuredClone(start), found = lookUp(start.memory, start.key, start.sharpness), after = writeKey(start);
      for (const name of ["similarity", "weights", "read"]) close(found[name], look[name]);
      assert.equal(after.slot, write.slot);
      for (const name of ["memory", "usage"]) close(after[name], write[name]);
      assert.equal(describe(start), words);
      assert.deepEqual(start, before, "the functions change nothing in place");
    });
  });

  test("of slots that tie the lowest is the least used", () => assert.equal(leastUsed([2, 0.5, 0.5, 1]), 1));
});

group("the page", () => {
  let browser, context, page, problems;
  before(async () => { browser = await launch(); });
  after(() => browser?.close());

  async function show(options) {
    ({ context, page, problems } = await open(browser, PAGE, options));
    await page.locator(".ca").scrollIntoViewIfNeeded();
  }
  const story = () => page.locator(".ca-story").textContent();
  const column = (n) => page.locator(`.ca tbody td:nth-of-type(${n})`).allInnerTexts();
  const weights = async () => (await column(3)).map(Number);
  const button = (name) => page.locator(".ca").getByRole("button", { name });
  const range = (name) => page.locator(".ca").getByLabel(name, { exact: true });

  test("starts with what Python says", async () => {
    await show();
    assert.equal(await story(), cases[1].words);
    close(await weights(), cases[1].look.weights.map((value) => Number(value.toFixed(3))));
    assert.deepEqual(problems, []);
    await context.close();
  });

  test("arrow keys turn and stretch the key; length alone changes no weight", async () => {
    await show();
    const handle = page.locator(".ca-handle");
    await handle.focus();
    const [angle, before] = [Number(await handle.getAttribute("aria-valuenow")), await weights()];
    for (let i = 0; i < 3; i++) await page.keyboard.press("ArrowDown");
    assert.match(await handle.getAttribute("aria-valuetext"), /length 0\.55$/);
    (await weights()).forEach((value, i) => assert.ok(Math.abs(value - before[i]) < 0.004)); // turned to a whole degree
    await page.keyboard.press("ArrowLeft");
    await page.keyboard.press("Shift+ArrowRight");
    assert.equal(Number(await handle.getAttribute("aria-valuenow")), angle + 4);
    assert.equal(await range("Turn the key").inputValue(), String(angle + 4));
    for (let i = 0; i < 9; i++) await page.keyboard.press("ArrowDown");
    assert.match(await story(), /like no slot: all 6 are read alike/);
    assert.equal(new Set(await weights()).size, 1);
    await context.close();
  });

  test("the range inputs turn, stretch and sharpen", async () => {
    await show();
    await range("Turn the key").fill("-75");
    assert.match(await story(), /^Slot 4 is most like the key: cosine 1\.000/);
    const soft = (await weights())[4];
    await range("Sharpness β").fill("20");
    assert.ok((await weights())[4] > 0.99 && soft < 0.5);
    await range("Stretch the key").fill("2");
    assert.match(await page.locator(".ca-handle").getAttribute("aria-valuetext"), /^angle −75°, length 2\.00$/);
    await context.close();
  });

  test("the pointer drags the key, and a click in the plane moves it there", async () => {
    await show();
    const plane = await page.locator(".ca-plane").boundingBox();
    const [x, y] = [plane.x + plane.width / 2, plane.y + plane.height / 2];
    const grip = await page.locator(".ca-handle .ca-key").boundingBox();
    await page.mouse.move(grip.x + grip.width / 2, grip.y + grip.height / 2);
    await page.mouse.down();
    await page.mouse.move(x - 60, y, { steps: 4 });
    await page.mouse.move(x, y - 60, { steps: 4 });
    await page.mouse.up();
    assert.equal(await range("Turn the key").inputValue(), "90");
    assert.match(await story(), /^Slot 1 is most like the key/);
    await page.mouse.move(x + 90, y - 90);
    assert.equal(await range("Turn the key").inputValue(), "90", "let go is let go");
    await page.mouse.click(x - 70, y + 70);
    const turned = Number(await range("Turn the key").inputValue());
    assert.ok(Math.abs(turned + 135) <= 1, `turned to ${turned}: to a degree, since a click is at a whole pixel and the plane need not be`);
    await context.close();
  });

  test("write takes the least used slot, reset takes it back", async () => {
    await show();
    const [vectors, usage] = [await column(1), await column(4)];
    await button("Write k into slot 5").click();
    assert.match(await story(), /^The key was written into slot 5\. Slot 5 is most like the key: cosine 1\.000/);
    assert.equal((await column(1))[5], "(0.90, 0.70)");
    const shown = (await column(4)).map((text) => Number(text.replace("least", "")));
    close(shown, cases[1].write.usage.map((value) => Number(value.toFixed(2))));
    assert.equal((await column(4)).findIndex((text) => text.startsWith("least")), leastUsed(cases[1].write.usage));
    for (let i = 0; i < 5; i++) await button(/^Write k into slot/).click();
    assert.ok((await page.locator(".ca tbody tr").count()) === 6);
    await button("Reset").click();
    assert.deepEqual([await column(1), await column(4)], [vectors, usage]);
    assert.deepEqual(problems, []);
    await context.close();
  });

  test("in a live notebook it leads the traits and follows them", async () => {
    const live = await browser.newPage();
    await live.setContent("<main></main>");
    const source = python(["-c", "from lib.inspector.addressing import MODULE; print(MODULE)"]);
    await live.addScriptTag({ type: "module", content: source.replace("export default", "window.view =") });
    await live.waitForFunction(() => window.view);
    const traits = await live.evaluate((start) => {
      const values = structuredClone(start), listeners = {}; // what anywidget gives: get, set, on, off, save_changes
      const set = (name, value) => { values[name] = value; for (const tell of listeners[`change:${name}`] ?? []) tell(); };
      const model = {
        get: (name) => values[name], set, save_changes: () => { window.saved = structuredClone(values); },
        on: (event, tell) => (listeners[event] ??= new Set()).add(tell), off: (event, tell) => listeners[event].delete(tell),
      };
      window.model = model;
      window.stop = window.view.render({ model, el: document.querySelector("main") });
      window.count = () => Object.values(listeners).reduce((sum, all) => sum + all.size, 0);
      document.querySelector(".ca-buttons button").click();
      return window.saved;
    }, cases[1].start);
    close(traits.memory, cases[1].write.memory);
    close(traits.usage, cases[1].write.usage);
    assert.match(await live.locator(".ca-story").textContent(), /^The key was written into slot 5/, "its own change is not taken for a foreign one");

    await live.evaluate(() => { model.set("memory", [[1, 0], [0, 1]]); model.set("usage", [1, 0]); model.set("key", [0, 2]); });
    assert.equal(await live.locator(".ca tbody tr").count(), 2);
    assert.match(await live.locator(".ca-story").textContent(), /^Slot 1 is most like the key: cosine 1\.000/);
    assert.deepEqual(await live.evaluate(() => { stop(); return [count(), document.querySelector("main").childElementCount]; }), [0, 0]);
    await live.close();
  });

  test("follows the theme of the page, and fits a narrow one", async () => {
    await show({ theme: "dark", width: 390 });
    assert.equal(await page.locator(".ca").getAttribute("data-theme"), "dark");
    const box = await page.locator(".ca").boundingBox(), table = await page.locator(".ca table").boundingBox();
    assert.ok(table.x + table.width <= box.x + box.width, "the table stays in its frame");
    await page.evaluate(() => { document.documentElement.dataset.theme = "light"; });
    await page.waitForFunction(() => document.querySelector(".ca").dataset.theme === "light");
    await context.close();
  });
});
