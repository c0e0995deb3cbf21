// What the checks in a browser share: a browser, a page that reports what would hinder a person, and axe.

"use strict";
const fs = require("fs");
const { chromium } = require("playwright-core");

const GRAPHICS = ["--use-gl=swiftshader", "--enable-unsafe-swiftshader"]; // WebGL without a graphics card

async function launch() {
  const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
  return chromium.launch({ executablePath, args: ["--no-sandbox", ...GRAPHICS] });
}

// Opens a page; `say` hears of errors, of the console's errors, and of requests that `isOwn` does not know.
async function open(browser, address, { width, colorScheme, isOwn, say }) {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme });
  const page = await context.newPage();
  page.on("pageerror", (error) => say(`error: ${error.message}`));
  page.on("console", (message) => message.type() === "error" && say(`console: ${message.text()}`));
  page.on("request", (request) => isOwn(request.url()) || say(`request: ${request.url()}`));
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective));
  });
  await page.goto(address);
  await page.waitForTimeout(2500); // until the figures are drawn
  return page;
}

async function checkWidth(page, say) {
  const sideways = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (sideways > 0) say(`${sideways} pixels stand out to the side`);
}

// Runs axe in light and in dark; `prepare` brings the page into the state to check.
async function checkAccess(browser, address, say, prepare = async () => {}) {
  for (const colorScheme of ["light", "dark"]) {
    // axe is a script of its own, which the page's policy would refuse.
    const context = await browser.newContext({ bypassCSP: true, colorScheme });
    const page = await context.newPage();
    await page.goto(address);
    await page.waitForTimeout(2500);
    await prepare(page);
    await page.addScriptTag({ content: fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8") });
    const found = await page.evaluate(async () => (await window.axe.run()).violations);
    for (const { impact, id, nodes } of found) {
      if (["serious", "critical"].includes(impact)) say(`${colorScheme}: ${id}, ${nodes[0].html}`);
    }
    await context.close();
  }
}

// Prints the faults and ends the program.
function finish(what, faults) {
  faults.forEach((fault) => console.error(fault));
  console.log(`${what}, ${faults.length} faults`);
  process.exit(faults.length ? 1 : 0);
}

module.exports = { launch, open, checkWidth, checkAccess, finish };
