// The viewers of an episodic memory as a reader meets them: the fit that a page computes is that of lib/methods/mbpa.py,
// and pages of its own, from file:// with the network off, obey pointer and keyboard.
import assert from "node:assert/strict";
import { after, before, describe as group, test } from "node:test";
import { describe, fit, unpack } from "../../lib/inspector/episodic.js";
import { describe as describeText, unpack as unpackText } from "../../lib/inspector/episodic_text.js";
import { answers, valueAt } from "../../lib/inspector/local_fit.js";
import { violations } from "./book.mjs";
import { makePages } from "./own_pages.mjs";

let made, expected;
before(async () => {
  made = await makePages("episodic_pages.py", ".episodic-memory");
  expected = made.expected;
});
after(() => made?.close());
const on = (...how) => made.on(...how);
const text = (root, part) => root.locator(part).innerText();
const slider = (root, name) => root.getByRole("slider", { name, exact: true });
const fixed = (value, digits = 2) => (Number(value.toFixed(digits)) || 0).toFixed(digits).replace("-", "−");
const LIVE = "[aria-live], [role=status], output", spoken = (root) => root.getByRole("status");
/** Wait until what is read aloud begins, or matches, so. */
const hears = (page, words) => page.waitForFunction((wanted) => new RegExp(wanted).test(document.querySelector("[role=status]").textContent), words.source ?? words);
const focused = (page, name) => page.evaluate((key) => document.activeElement.getAttribute(key), name);
const rowsOf = (root, nth) => root.locator(".em-tables table").nth(nth).locator("tbody tr").evaluateAll((rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent)));
const top = (values) => values.indexOf(Math.max(...values));

function close(one, other, within = 1e-5) {
  assert.equal(one.length, other.length);
  one.forEach((value, i) => {
    if (typeof value === "object") close([...value], [...other[i]], within);
    else assert.ok(Math.abs(value - other[i]) <= within * Math.max(1, Math.abs(other[i])), `${value} and ${other[i]}`);
  });
}

group("the numbers", () => {
  for (const name of ["images", "colours"]) {
    test(`${name}: neighbours, probabilities, loss and movement are those of adapted_by_loop`, () => {
      const { json, cases } = expected[name], trace = unpack(json);
      assert.equal(new Set(cases.map(({ settings }) => settings.optimizer)).size, 3);
      for (const { query, settings, without, positions, weights, p, moved, loss } of cases) {
        const found = fit(trace, query, settings, without);
        assert.deepEqual(found.context.map(({ position }) => position), positions);
        close(found.context.map(({ weight }) => weight), weights);
        close(found.steps.map((step) => step.p), p);
        close(found.steps.map((step) => step.moved), moved);
        close(found.steps.map((step) => step.loss), loss);
        assert.ok(Math.abs(found.vote.reduce((a, b) => a + b) - 1) < 1e-9);
      }
      assert.deepEqual(trace.theta, unpack(json).theta, "θ is as it was");
    });
  }

  test("the regression's three answers are those of lib", () => {
    const { json, cases } = expected.toy;
    for (const { variant, query, settings, answers: said } of cases) {
      const found = answers(json[variant], query, settings);
      close(["network", "attention", "fitted", "moved"].map((name) => found[name]), ["network", "attention", "fitted", "moved"].map((name) => said[name]));
    }
  });

  test("a text's probabilities and gains are those of the trace", () => {
    const trace = unpackText(expected.text.json);
    expected.text.gains.forEach((gains, query) => gains.forEach((gain, setting) => {
      assert.ok(Math.abs(trace.gain(query, setting) - gain) < 1e-5);
      close(expected.text.p[query][setting], [0, 1].map((when) => Array.from({ length: trace.W }, (_, w) => trace.p(query, setting, when, w))), 1e-6);
    }));
  });
});

for (const width of [320, 390, 768, 1400]) {
  for (const colorScheme of ["light", "dark"]) {
    test(`${width} pixels wide, ${colorScheme}: all fit, nothing serious for axe`, async () => {
      for (const name of ["images.html", "colours.html", "text.html", "toy.html"]) {
        await on(name, async (page, root) => {
          assert.equal(await root.getAttribute("data-theme"), colorScheme);
          const tooWide = () => page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
          assert.ok(await tooWide() <= 0, name);
          if (await root.locator("summary").count()) await root.locator("summary").click();
          assert.ok(await tooWide() <= 0, `${name}: its tables scroll within`);
          assert.deepEqual(await violations(page), [], name);
        }, { width, colorScheme });
      }
    });
  }
}

group("images", () => {
  test("each query and each step is told, and the count of right answers is that of Python", () => on("images.html", async (page, root) => {
    const { json, right, names } = expected.images, trace = unpack(json), last = right.at(-1), count = (list) => list.filter(Boolean).length;
    assert.ok((await text(root, ".em-result")).startsWith(`Named rightly, before → after the fit: ${count(right[0])} → ${count(last)} of 8 queries`));
    for (const [query, step] of [[0, 0], [5, 2], [7, 4]]) {
      await root.locator(".em-is-query").nth(query).click();
      await slider(root, "Step").fill(String(step));
      const found = fit(trace, query, json.settings);
      assert.equal(await text(root, ".em-story"), describe(trace, { query, step }, found));
      assert.ok((await text(root, ".em-answers .em-true .em-name")).startsWith(names[trace.truth[query]].slice(0, 7)));
      const numbers = await root.locator(".em-answers .em-true .em-numbers span").allInnerTexts();
      numbers.forEach((each, i) => close([parseFloat(each.replace(/[^\d.]/g, ""))], [100 * found.steps[i ? step : 0].p[trace.truth[query]]], 0.1));
      assert.equal(await root.locator("[aria-label^='neighbour ']").count(), found.context.length);
    }
    const labels = await root.locator(".em-is-query").evaluateAll((all) => all.map((each) => each.getAttribute("aria-label")));
    labels.forEach((label, i) => assert.ok(label.endsWith(`${right[0][i] ? "right" : "wrong"} before, ${last[i] ? "right" : "wrong"} after`), label));
  }));

  test("with no kernel the settings are changed, and the fit is computed anew", () => on("images.html", async (page, root) => {
    const trace = unpack(expected.images.json), settings = { ...trace.settings };
    for (const [name, label, value, set] of [["neighbours", "K, neighbours", "9", 9], ["steps", "T, steps", "7", 7], ["rate", "α, rate", "0", 1], ["prior", "β, pull back to θ", "0.2", 0.2]]) {
      await slider(root, label).fill(value);
      settings[name] = set;
      const found = fit(trace, 5, settings);
      const step = Number(await root.getAttribute("data-step"));
      assert.equal(await text(root, ".em-story"), describe(trace, { query: 5, step }, found));
    }
    await root.getByRole("radio", { name: "Adam" }).check();
    await slider(root, "Step").fill("7");
    assert.equal(await text(root, ".em-story"), describe(trace, { query: 5, step: 7 }, fit(trace, 5, { ...settings, optimizer: "adam" })));
    assert.match(await root.locator(".em-chart > svg").last().getAttribute("aria-label"), /at the steps 0, 7 and 7/);
    await root.getByRole("button", { name: "All as at the start" }).click();
    assert.equal(await text(root, ".em-story"), describe(trace, { query: 5, step: 4 }, fit(trace, 5, trace.settings)));
  }));

  test("a neighbour is told of, taken out and put back", () => on("images.html", async (page, root) => {
    const trace = unpack(expected.images.json), [first, second] = fit(trace, 5, trace.settings).context, neighbours = root.locator("[aria-label^='neighbour ']");
    await neighbours.nth(1).click();
    assert.ok((await text(root, ".em-about")).includes(`Position ${second.position} in memory`));
    assert.ok((await text(root, ".em-about")).includes(`w = ${fixed(second.weight, 3)}`));
    await neighbours.nth(0).click();
    await root.getByRole("button", { name: "Take it out of memory" }).click();
    const found = fit(trace, 5, trace.settings, [first.position]);
    assert.equal(await text(root, ".em-story"), describe(trace, { query: 5, step: 2 }, found));
    assert.ok(!(await neighbours.evaluateAll((all) => all.map((each) => Number(each.dataset.key)))).includes(first.position));
    assert.match(await root.locator(".em-label", { hasText: "keys in memory" }).innerText(), /nearest of 29 keys/);
    await root.locator(".em-gone button").click();
    assert.equal(await text(root, ".em-story"), describe(trace, { query: 5, step: 2 }, fit(trace, 5, trace.settings)));
    assert.ok(await root.locator(".em-gone").isHidden());
  }));

  test("what was taken out at the start is there to be put back, and told of", () => on("colours.html", async (page, root) => {
    assert.equal(await root.locator(".em-gone button").count(), 2);
    assert.match(await text(root, ".em-about"), /Position 9 in memory[^]*It is taken out of memory/);
    await root.locator(".em-about").getByRole("button", { name: "Put it back" }).click();
    assert.equal(await root.locator(".em-gone button").count(), 1);
  }));

  test("queries and neighbours are lists of options, of which one is chosen", () => on("images.html", async (page, root) => {
    const [queries, neighbours] = ["The queries", "The neighbours, the nearest first"].map((name) => root.getByRole("listbox", { name, exact: true }).getByRole("option"));
    assert.deepEqual([await queries.count(), await neighbours.count()], [8, 6]);
    assert.equal(await queries.and(root.getByRole("option", { selected: true })).getAttribute("data-key"), "5");
    await neighbours.nth(2).click();
    assert.deepEqual(await neighbours.evaluateAll((all) => all.map((each) => each.ariaSelected)), ["false", "false", "true", "false", "false", "false"]);
    const name = await root.locator(".em-answers .em-name", { hasText: "a class whose" }).evaluate((element) => [element.scrollWidth, element.clientWidth]);
    assert.ok(name[0] <= name[1], "a long name is shown in full");
  }));

  test("the classes' lines differ in more than colour, and are there as numbers", () => on("images.html", async (page, root) => {
    const { json, names } = expected.images, trace = unpack(json);
    await root.locator("summary").click();
    for (const query of [4, 5]) {
      await root.locator(".em-is-query").nth(query).click();
      const { steps } = fit(trace, query, json.settings), rows = await rowsOf(root, 0), y = trace.truth[query];
      assert.equal(rows.length, 5);
      rows.forEach(([step, p, ...more], t) => {
        assert.equal(step, String(t));
        close([parseFloat(p.replace(/[^\d.]/g, ""))], [100 * steps[t].p[y]], 0.1);
        assert.deepEqual(more.slice(-2), [fixed(steps[t].moved, 3), fixed(steps[t].loss, 3)]);
      });
      const label = await root.locator(".em-chart > svg").first().getAttribute("aria-label");
      assert.ok(label.includes(`${names[y]}, the query's class, ${rows[0][1]}, ${rows[2][1]}, ${rows[4][1]}`), label);
      const looks = await root.locator(".em-chart").first().locator("[class^='em-dot']").evaluateAll((all) => all.map((each) => each.getAttribute("d")));
      assert.equal(new Set(looks).size, looks.length / 2, "one shape a line, in the chart and its legend");
      assert.ok(looks.length > 2, "more than one line");
    }
  }));

  test("one live region tells what changed, when it has", () => on("images.html", async (page, root) => {
    assert.equal(await root.locator(LIVE).count(), 1);
    assert.equal(await spoken(root).textContent(), "", "nothing at first");
    await spoken(root).evaluate((region) => {
      window.heard = [];
      new MutationObserver(() => window.heard.push(region.textContent)).observe(region, { childList: true });
    });
    const [step, rate] = [slider(root, "Step"), slider(root, "α, rate")];
    for (const value of [0, 1, 3, 4]) await step.fill(String(value));
    await hears(page, /After 4 steps/);
    const story = await text(root, ".em-story");
    assert.deepEqual(await page.evaluate(() => window.heard), [story], "the last of four, and not what is as it was");
    for (const value of [-0.5, 0, 1]) await rate.fill(String(value));
    await hears(page, /^Named/);
    assert.equal(await spoken(root).textContent(), `${await text(root, ".em-result")} ${await text(root, ".em-story")}`);
    await page.evaluate(() => { document.documentElement.dataset.theme = "dark"; });
    await root.locator("[aria-label^='neighbour 2,']").click();
    await hears(page, /^A neighbour: /);
    assert.equal((await page.evaluate(() => window.heard)).length, 3, "another theme is nothing to tell");
  }));

  test("the keyboard alone is enough", () => on("images.html", async (page, root) => {
    const query = root.locator(".em-is-query[tabindex='0']");
    assert.equal(await query.count(), 1, "one stop for all queries");
    await query.focus();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    assert.equal(await root.getAttribute("data-query"), "6");
    assert.equal(await focused(page, "data-key"), "6", "the focus stays");
    for (const [key, place] of [["ArrowLeft", "5"], ["ArrowRight", "6"], ["End", "7"], ["ArrowRight", "7"], ["ArrowUp", "6"], ["Home", "0"], ["ArrowLeft", "0"]]) {
      await page.keyboard.press(key);
      assert.equal(await focused(page, "data-key"), place, key);
    }
    assert.deepEqual([await root.getAttribute("data-query"), await root.getAttribute("data-step")], ["6", "2"], "neither is chosen by moving");
    await page.keyboard.press(" ");
    assert.equal(await root.getAttribute("data-query"), "0");
    await root.getByRole("button", { name: "Play" }).press("ArrowRight");
    assert.equal(await root.getAttribute("data-step"), "3");
    await page.keyboard.press("Home");
    assert.equal(await root.getAttribute("data-step"), "0");
    await root.locator("[aria-label^='neighbour 1,']").focus();
    await page.keyboard.press("ArrowDown");
    const gone = await focused(page, "data-key");
    await page.keyboard.press("Backspace");
    assert.ok(await root.locator(".em-gone").isHidden(), "Backspace takes nothing out");
    await page.keyboard.press("Delete");
    assert.ok((await text(root, ".em-gone")).includes(`(${gone})`));
    assert.ok(await root.evaluate((element) => element.contains(document.activeElement)));
    await slider(root, "K, neighbours").focus();
    await page.keyboard.press("ArrowLeft");
    assert.equal(await root.locator("[aria-label^='neighbour ']").count(), 5, "arrows in a setting change the setting");
    assert.equal(await root.getAttribute("data-step"), "0");
    await root.locator("summary").press(" ");
    await root.locator(".em-tables table").waitFor(); // and nothing plays
    assert.equal(await root.getByRole("button", { name: "Play" }).count(), 1);
  }));

  test("a click in a chart goes to its step, and playing goes on by itself", () => on("images.html", async (page, root) => {
    const chart = root.locator(".em-chart > svg").first(), box = await chart.boundingBox();
    await chart.click({ position: { x: box.width - 14, y: 60 } });
    assert.equal(await root.getAttribute("data-step"), "4");
    await root.getByRole("button", { name: "Play" }).click();
    for (const step of ["1", "2"]) await page.waitForFunction((now) => document.querySelector(".episodic-memory").dataset.step === now, step);
    assert.doesNotMatch(await spoken(root).textContent(), /After 1 step /, "not while it plays");
    await root.getByRole("button", { name: "Pause" }).click();
    await hears(page, /After [23] steps/);
  }));

  test("in a live notebook it follows its model and tells it what the reader does", () => on("widget.html", async (page) => {
    const result = await page.evaluate(async ([module, trace]) => {
      const { default: widget } = await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })));
      const values = { trace, query: 2, step: 1, settings: trace.settings, without: [], neighbour: null }, listeners = {}, saved = [];
      const el = document.createElement("div");
      const model = {
        get: (name) => values[name], set(name, value) { values[name] = value; }, save_changes: () => saved.push({ ...values, trace: 0 }),
        on: (name, handler) => (listeners[name] = handler), off: (name) => delete listeners[name],
      };
      const change = (name, value) => { values[name] = value; listeners[`change:${name}`](); };
      const stop = widget.render({ model, el });
      document.querySelector("#cell").append(el);
      const root = () => el.querySelector(".episodic-memory"), seen = () => [root().dataset.query, root().dataset.step];
      const states = [seen()];
      change("query", 3);
      change("settings", { ...trace.settings, steps: 2, neighbours: 3 });
      states.push(seen(), el.querySelectorAll("[aria-label^='neighbour ']").length, saved.length);
      el.querySelector("[aria-label^='neighbour 1,']").dispatchEvent(new KeyboardEvent("keydown", { key: "Delete", bubbles: true }));
      stop();
      return { states, saved, left: [el.children.length, Object.keys(listeners).length] };
    }, [expected.module, expected.images.json]);
    assert.deepEqual(result.states, [["2", "1"], ["3", "1"], 3, 0]);
    assert.equal(result.saved.length, 1);
    assert.equal(result.saved[0].without.length, 1);
    assert.deepEqual([result.saved[0].query, result.saved[0].settings.neighbours], [3, 3]);
    assert.deepEqual(result.left, [0, 0]);
  }));

  test("follows the theme of the page", () => on("images.html", async (page, root) => {
    await page.evaluate(() => { document.documentElement.dataset.theme = "dark"; });
    await page.locator(".episodic-memory[data-theme=dark]").waitFor();
    assert.notEqual(await root.evaluate((element) => getComputedStyle(element).backgroundColor), "rgb(255, 255, 255)");
  }));
});

group("text", () => {
  test("places and settings are chosen among what was recorded", () => on("text.html", async (page, root) => {
    const trace = unpackText(expected.text.json), { start, gains, shown } = expected.text;
    for (const [query, k, t, rate, setting] of [[2, "16", "1", "0.5", start], [4, "4", "1", "2", 2], [0, "16", "6", "0.1", 9], [1, "4", "6", "0.5", 4]]) {
      await root.locator(".et-place").nth(query).click();
      await root.getByRole("group", { name: "K", exact: true }).getByRole("radio", { name: k, exact: true }).check();
      await root.getByRole("group", { name: "T", exact: true }).getByRole("radio", { name: t, exact: true }).check();
      await root.getByRole("group", { name: "α", exact: true }).getByRole("radio", { name: rate, exact: true }).check();
      assert.equal(await root.getAttribute("data-setting"), String(setting));
      assert.equal(await text(root, ".em-story"), describeText(trace, query, setting));
      const names = await root.locator(".em-answers .em-name").evaluateAll((all) => all.map((each) => each.textContent.replace(/^[▲▼=] | ◂$/g, "")));
      assert.equal(names[0], shown[query][setting][0]);
      assert.deepEqual(new Set(names), new Set(shown[query][setting]));
      const bits = await root.locator(".et-gain").allInnerTexts();
      bits.forEach((each, i) => assert.ok(Math.abs(Number(each.replace("−", "-")) - gains[i][setting]) < 0.006, each));
      const neighbours = await root.locator(".et-memory li").count();
      assert.equal(neighbours, Math.min(k === "4" ? 4 : 12, [3, 60, 100, 150, 198][query]));
    }
    assert.match(await text(root, ".et-text"), /place 60; 60 steps in memory/);
  }));

  test("the keyboard moves among the places", () => on("text.html", async (page, root) => {
    assert.equal(await root.locator(".et-place[tabindex='0']").count(), 1);
    await root.locator(".et-place[tabindex='0']").focus();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    assert.equal(await root.getAttribute("data-query"), "3");
    assert.equal(await root.getByRole("option", { selected: true }).getAttribute("data-key"), "3");
    await hears(page, /^Then came/);
    for (const [key, place] of [["Home", "0"], ["ArrowLeft", "0"], ["End", "4"], ["ArrowLeft", "3"], ["ArrowRight", "4"], ["ArrowUp", "3"]]) {
      await page.keyboard.press(key);
      assert.equal(await focused(page, "data-key"), place, key);
    }
    assert.equal(await root.locator(LIVE).count(), 1);
  }));

  test("a neighbour that was followed by the word that came has a sign of its own", () => on("text.html", async (page, root) => {
    for (const query of [0, 1, 2, 3, 4]) {
      await root.locator(".et-place").nth(query).click();
      const found = await root.locator(".et-memory li").evaluateAll((all) => all.map((each) => [each.querySelector("b").textContent, each.textContent.includes("◂")]));
      const word = await root.locator(".et-text b").innerText();
      for (const [followed, signed] of found) assert.equal(signed, followed === word);
    }
  }));
});

group("the regression", () => {
  const heights = (root, part) => root.locator(part).evaluateAll((all) => all.map((each) => Number(each.getAttribute("transform").match(/ (-?[\d.]+)\)/)[1])));
  const marks = (root) => heights(root, ".lf-mark");

  test("tells what Python tells, and follows settings and variants", () => on("toy.html", async (page, root) => {
    const { json, summary } = expected.toy, said = await text(root, ".em-story");
    const numbers = (words) => words.match(/−?\d+\.\d\d/g);
    assert.deepEqual(numbers(summary), numbers(said).filter((_, i) => i !== 1).slice(0, 4));
    await root.getByRole("radio", { name: "second" }).check();
    await slider(root, "T, steps").fill("12");
    await slider(root, "K, neighbours").fill("5");
    const found = answers(json.second, 1, { ...json.first.settings, steps: 12, neighbours: 5 });
    assert.match(await text(root, ".em-story"), new RegExp(`attention ${fixed(found.attention)}, the fitted network ${fixed(found.fitted)}\\. The nearest of 5 samples`));
    assert.equal(await root.locator(".lf-used").count(), 5);
    assert.equal(await root.locator(".lf-held").count(), 7);
  }));

  test("a descent that runs away has no number and no curve, and is told", () => on("toy.html", async (page, root) => {
    assert.doesNotMatch(await text(root, ".em-story"), /ran away/);
    const steps = Number(await slider(root, "T, steps").getAttribute("max"));
    await slider(root, "T, steps").fill(String(steps));
    await slider(root, "α, rate").fill("0");
    const { json } = expected.toy, found = answers(json.first, 1, { ...json.first.settings, steps, rate: 1 });
    assert.ok(!(Math.abs(found.fitted) < 100), String(found.fitted));
    assert.match(await text(root, ".em-story"), /the fitted network (–|−?\d\.\de\+\d+)\..*The descent ran away: lower α, or do fewer steps\./);
    assert.equal(await root.locator(".lf-plane .lf-mark").count(), 2);
    assert.deepEqual(await root.locator(".lf-plane path").evaluateAll((all) => all.filter((each) => /NaN|Infinity/.test(each.outerHTML)).map((each) => each.outerHTML)), []);
  }));

  test("the query is dragged, and moved by keys", () => on("toy.html", async (page, root) => {
    const box = await root.locator(".lf-plane").boundingBox(), at = (x) => box.x + (box.width * (40 + (672 * (x + 4)) / 8)) / 720;
    const grip = await root.locator(".lf-query").boundingBox(), y = grip.y + grip.height / 2, was = await marks(root);
    await page.mouse.move(grip.x + grip.width / 2, y);
    await page.mouse.down();
    await page.mouse.move(at(-2), y, { steps: 4 });
    await page.mouse.up();
    assert.equal(await root.getAttribute("data-query"), "−2.00");
    assert.notDeepEqual(await marks(root), was);
    await hears(page, /^x = −2\.00/);
    assert.equal(await root.locator(LIVE).count(), 1);
    await page.mouse.click(at(3), box.y + 60);
    assert.equal(await root.getAttribute("data-query"), "3.00");
    await slider(root, "The query, x").focus();
    for (const [key, query] of [["ArrowRight", "3.05"], ["End", "4.00"]]) {
      await page.keyboard.press(key);
      assert.equal(await root.getAttribute("data-query"), query);
    }
    await root.getByRole("button", { name: "All as at the start" }).click();
    assert.equal(await root.getAttribute("data-query"), "1.00");
  }));

  test("the curves of all queries pass through the marks of this one, and are told of", () => on("toy.html", async (page, root) => {
    assert.equal(await root.locator(".lf-line").count(), 4 + 4, "with those of the legend");
    await root.getByRole("checkbox").check();
    const ends = await root.locator(".lf-line-all, .lf-line-votes").evaluateAll((all) => all.map((each) => each.getPointAtLength(0).y));
    await slider(root, "The query, x").fill("-4");
    const [, attention, fitted] = await marks(root);
    close(ends, [fitted, attention], 0.01);

    const { json } = expected.toy, xs = Array.from({ length: 121 }, (_, i) => 4 * (i / 60 - 1));
    const error = (way) => fixed(Math.sqrt(xs.reduce((total, x) => total + (answers(json.first, x, json.first.settings)[way] - valueAt(json.first.truth, x)) ** 2, 0) / 121));
    const words = `is ${error("network")} for the network, ${error("attention")} for attention, ${error("fitted")} for MbPA.`;
    assert.ok((await text(root, ".em-story")).endsWith(words), words);
    await hears(page, /^x = −4\.00.* for MbPA\.$/);
    await slider(root, "T, steps").fill("60"); // so many are asked once the reader is still
    await root.locator(".lf-line-all").waitFor();
  }));

  test("the drawing has a name, shapes beside its colours, and its numbers in tables", () => on("toy.html", async (page, root) => {
    const { memory, truth, settings, network } = expected.toy.json.first;
    assert.ok(await root.getByRole("img", { name: /^Over x from −4 to 4: the function now/ }).isVisible());
    assert.equal(await root.getByRole("slider", { name: /query/ }).count(), 1, "one slider for the query");
    assert.equal(new Set(await root.locator(".lf-mark").evaluateAll((all) => all.map((each) => each.getAttribute("d")))).size, 3);
    const dashes = await root.locator(".lf-plane .lf-line").evaluateAll((all) => all.map((each) => getComputedStyle(each).strokeDasharray));
    assert.equal(new Set(dashes).size, 4);
    await root.locator("summary").click();
    await root.getByRole("checkbox").check();
    const [samples, curves] = [await rowsOf(root, 0), await rowsOf(root, 1)], { context, own } = answers(expected.toy.json.first, 1, settings);
    assert.deepEqual(samples.map(([x]) => x), [...memory[0]].sort((a, b) => a - b).map((x) => fixed(x)));
    assert.deepEqual(samples.map(([, , w]) => w).filter((w) => w !== "–").sort(), context.map(({ weight }) => fixed(weight, 3)).sort());
    for (const [i, x] of [[0, -4], [10, 1], [16, 4]]) {
      const here = answers(expected.toy.json.first, x, settings), there = answers({ memory, network: own }, x, settings).network;
      assert.deepEqual(curves[i], [x, valueAt(truth, x), here.network, there, here.fitted, here.attention].map((value) => fixed(value)));
    }
    await slider(root, "T, steps").fill("0");
    assert.deepEqual((await rowsOf(root, 1)).map((row) => row[2]), (await rowsOf(root, 1)).map((row) => row[3]), "no step: the network's own curve");
  }));
});
