// Every rendered page, from file:// with the network off: quiet, accessible in both themes, whole.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { launch, open, pages } from "./book.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const REDIRECT = "index.html"; // the folder's front door: it only leads to book/index.html

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

/** What axe finds serious or critical, one line an element. */
async function violations(page) {
  await page.evaluate(AXE);
  // preload: axe would fetch the style sheets a second time, which file:// does not allow.
  const results = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"], preload: false }));
  return results.violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .flatMap(({ id, help, nodes }) => nodes.map((node) => `${id}: ${help}: ${node.target} ${node.html.slice(0, 160)}`));
}

for (const name of pages().filter((name) => name !== REDIRECT)) {
  for (const [theme, width] of [["light", 1280], ["dark", 1280], ["light", 390], ["dark", 390]]) {
    test(`${name}, ${theme}, ${width} pixels wide: no error, no request, nothing serious for axe`, async () => {
      const { context, page, problems } = await open(browser, name, { theme, width });
      assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), theme);
      assert.deepEqual(await violations(page), []);
      assert.deepEqual(problems, []);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      assert.ok(overflow <= 0, `the page is ${overflow} pixels wider than the window`);
      await context.close();
    });
  }

  test(`${name}: one title, images with a text, links that lead somewhere`, async () => {
    const { context, page } = await open(browser, name);
    assert.equal(await page.locator("h1:visible").count(), 1, "one h1 (the theme has another, for print)");
    const images = await page.locator("img").evaluateAll((all) => all.map(({ src, alt }) => ({ src, alt })));
    for (const { src, alt } of images) {
      assert.ok(alt.trim() && !/\.(png|svg|jpe?g)$/.test(alt), `${src} needs an alt text, has ${JSON.stringify(alt)}`);
    }
    const links = await page.locator("a[href]").evaluateAll((all) => all.map(({ href }) => href));
    for (const link of links.filter((href) => href.startsWith("file:"))) {
      const url = new URL(link);
      const target = fileURLToPath(new URL(url.pathname, "file:///"));
      assert.ok(existsSync(target), `${link} leads to no file`);
      if (url.hash && path.extname(target) === ".html") {
        const id = decodeURIComponent(url.hash.slice(1));
        assert.ok(readFileSync(target, "utf8").includes(`id="${id}"`) || id === "", `${link} leads to no place on the page`);
      }
    }
    await context.close();
  });
}

test("the front door leads to the opening page", async () => {
  const { context, problems } = await open(browser, REDIRECT, { leadsTo: "book/index.html" });
  assert.deepEqual(problems, []);
  await context.close();
});

test("formulas are drawn", async () => {
  const withMath = pages().filter((name) => name !== REDIRECT && name.startsWith("book/"));
  let drawn = 0;
  for (const name of withMath) {
    const { context, page } = await open(browser, name);
    const formulas = await page.locator(".math").count();
    const svgs = await page.locator(".math mjx-container svg").count();
    assert.ok(svgs >= formulas, `${name}: ${svgs} of ${formulas} formulas are drawn`);
    assert.equal(await page.locator("mjx-merror").count(), 0, `${name}: a formula that MathJax cannot read`);
    drawn += svgs;
    await context.close();
  }
  assert.ok(drawn > 0, "no page of the book has a formula");
});
