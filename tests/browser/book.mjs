// What the browser tests share: the built pages, and a Chromium that lets nothing out.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

export const HTML = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../_build/html");
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

/** The book's pages, as paths from `_build/html`: ["book/index.html", ...]. Page templates in `_static` are none. */
export function pages() {
  if (!existsSync(HTML)) throw new Error(`${HTML} is not there: run make book first`);
  return readdirSync(HTML, { recursive: true })
    .map((name) => name.split(path.sep).join("/"))
    .filter((name) => name.endsWith(".html") && !name.startsWith("_static/"))
    .sort();
}

/** The file:// address of a page. */
export const address = (name) => pathToFileURL(path.join(HTML, name)).href;

export function launch() {
  if (!existsSync(CHROMIUM)) throw new Error(`${CHROMIUM} is not there: install chromium, or set CHROMIUM to its path`);
  return chromium.launch({ executablePath: CHROMIUM, headless: true, args: FLAGS });
}

/**
 * Open a page of the book from file:// with the network off and wait until its scripts and formulas are done.
 * `query` is appended to the address; `leadsTo` is the page to which it redirects, if it does.
 * `problems` collects what a reader must never meet: console errors, exceptions, requests to anything but a file.
 */
export async function open(browser, name, { theme = "light", width = 1280, height = 900, query = "", leadsTo = name } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, offline: true, reducedMotion: "reduce" });
  await context.addInitScript((mode) => localStorage.setItem("mode", mode), theme);
  const page = await context.newPage();
  const problems = [];
  page.on("console", (message) => {
    if (message.type() === "error") problems.push(`console: ${message.text()} (${message.location().url})`);
  });
  page.on("pageerror", (error) => problems.push(`exception: ${error.stack || error}`));
  page.on("request", (request) => {
    if (!/^(file|data|blob):/.test(request.url())) problems.push(`request: ${request.url()}`);
  });
  page.on("requestfailed", (request) => problems.push(`failed: ${request.url()} ${request.failure()?.errorText}`));
  await page.goto(address(name) + query, { waitUntil: "load" });
  await page.waitForURL(address(leadsTo) + query);
  await page.evaluate(() => window.MathJax?.startup?.promise);
  return { context, page, problems };
}

/** What axe finds serious or critical on a page, one line an element. */
export async function violations(page) {
  await page.evaluate(AXE);
  // preload: axe would fetch the style sheets a second time, which file:// does not allow.
  const results = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"], preload: false }));
  return results.violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .flatMap(({ id, help, nodes }) => nodes.map((node) => `${id}: ${help}: ${node.target} ${node.failureSummary}`));
}
