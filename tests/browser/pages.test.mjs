// Every rendered page, from file:// with the network off: quiet, accessible in both themes, whole.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { launch, open, pages, violations } from "./book.mjs";

const REDIRECT = "index.html"; // the folder's front door: it only leads to book/index.html

const withFormulas = [];
let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

for (const name of pages().filter((name) => name !== REDIRECT)) {
  for (const [theme, width] of [["light", 1280], ["dark", 1280], ["light", 390], ["dark", 390]]) {
    test(`${name}, ${theme}, ${width} pixels wide: no error, no request, nothing serious for axe`, async () => {
      const { context, page, problems } = await open(browser, name, { theme, width });
      assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), theme);
      assert.deepEqual(await violations(page), []);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      assert.ok(overflow <= 0, `the page is ${overflow} pixels wider than the window`);
      const unseen = await page.locator("table.ledger tr.below div:visible").evaluateAll((all) => all.filter((each) => {
        const frame = each.closest(".text_html").getBoundingClientRect(), note = each.getBoundingClientRect();
        return note.left < frame.left || note.right > frame.right + 1;
      }).map((each) => each.textContent.slice(0, 60)));
      assert.deepEqual(unseen, [], "notes below a row that one has to scroll for");
      const cut = await page.locator("div.math").evaluateAll((all) => all.filter((each) => {
        const drawn = each.querySelector("svg").getBoundingClientRect().left;
        return drawn < each.getBoundingClientRect().left - 1;
      }).map((each) => each.textContent.slice(0, 60)));
      assert.deepEqual(cut, [], "formulas that begin left of where one can scroll to");
      assert.deepEqual(problems, []);
      await context.close();
    });
  }

  test(`${name}: one title, images with a text, links that lead somewhere, every formula drawn`, async () => {
    const { context, page } = await open(browser, name);
    assert.equal(await page.locator("h1:visible").count(), 1, "one h1 (the theme has another, for print)");

    const images = await page.locator("img").evaluateAll((all) => all.map(({ src, alt }) => ({ src, alt })));
    for (const { src, alt } of images) {
      assert.ok(alt.trim() && !/\.(png|svg|jpe?g)$/.test(alt), `${src} needs an alt text, has ${JSON.stringify(alt)}`);
    }

    const links = await page.locator("a[href]").evaluateAll((all) => all.map(({ href }) => href));
    for (const link of links.filter((href) => href.startsWith("file:"))) {
      const url = new URL(link), target = fileURLToPath(new URL(url.pathname, "file:///"));
      assert.ok(existsSync(target), `${link} leads to no file`);
      const id = decodeURIComponent(url.hash.slice(1));
      const found = id === "" || path.extname(target) !== ".html" || readFileSync(target, "utf8").includes(`id="${id}"`);
      assert.ok(found, `${link} leads to no place on the page`);
    }

    const formulas = await page.locator(".math").count(), drawn = await page.locator(".math mjx-container svg").count();
    assert.ok(drawn >= formulas, `${drawn} of ${formulas} formulas are drawn`);
    assert.equal(await page.locator("mjx-merror, [data-mjx-error]").count(), 0, "a formula that MathJax cannot read");
    if (formulas > 0) withFormulas.push(name);
    await context.close();
  });
}

test("the book has formulas", () => assert.ok(withFormulas.length > 0));

test("the front door leads to the opening page", async () => {
  const { context, problems } = await open(browser, REDIRECT, { leadsTo: "book/index.html" });
  assert.deepEqual(problems, []);
  await context.close();
});

test("the search finds pages, from the disk as well", async () => {
  const { context, page, problems } = await open(browser, "search.html", { query: "?q=memory" });
  await page.locator("#search-results .search-summary", { hasText: /finished/ }).waitFor();
  assert.ok(await page.locator("#search-results li a").count() > 1);
  assert.deepEqual(problems, []);
  await context.close();
});
