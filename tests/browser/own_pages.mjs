// Pages that a test has Python make for itself, opened from file:// with the network off.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { launch } from "./book.mjs";

const HERE = path.dirname(fileURLToPath(import.meta.url)), ROOT = path.resolve(HERE, "../..");
const VENV = path.join(ROOT, ".venv/bin/python");
const PYTHON = process.env.PYTHON ?? (existsSync(VENV) ? VENV : "python3");

/** Run Python in the project's root, as `python(["-c", "print(1)"])`. Returns what it prints. */
export function python(args) {
  const env = { ...process.env, PYTHONPATH: ROOT, OMP_NUM_THREADS: "1" };
  return execFileSync(PYTHON, args, { cwd: ROOT, env, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
}

/**
 * What a script of this folder makes: pages, and `expected`, the content of its expected.json.
 * `on(name, check, options)` runs `check(page, root)` on one of the pages, root being what `selector` finds in it; no
 * error or warning may be logged and no server asked for anything. `close` ends it all.
 */
export async function makePages(script, selector) {
  const folder = mkdtempSync(path.join(tmpdir(), "pages-"));
  python([path.join(HERE, script), folder]);
  const browser = await launch();
  return {
    expected: JSON.parse(readFileSync(path.join(folder, "expected.json"), "utf8")),
    async on(name, check, { width = 1000, colorScheme = "light", scale = 1 } = {}) {
      const context = await browser.newContext({
        viewport: { width, height: 900 }, offline: true, reducedMotion: "reduce", colorScheme, deviceScaleFactor: scale,
      });
      const page = await context.newPage(), problems = [];
      page.on("console", (message) => { if (["error", "warning"].includes(message.type())) problems.push(message.text()); });
      page.on("pageerror", (error) => problems.push(String(error.stack)));
      page.on("request", (request) => { if (!/^(file|data|blob):/.test(request.url())) problems.push(request.url()); });
      await page.goto(pathToFileURL(path.join(folder, name)).href);
      await check(page, page.locator(selector));
      assert.deepEqual(problems, []);
      await context.close();
    },
    async close() {
      await browser.close();
      rmSync(folder, { recursive: true });
    },
  };
}
