// Opens pages of fairkd-report in a browser as a person would, and fails where a person would be hindered.
//
//   npm install --no-save playwright-core axe-core
//   CHROMIUM=/usr/bin/chromium node tests/browser/check_pages.cjs RUN/report.html [...]
//
// At 1280 and 390 pixels, light and dark: nothing is loaded from elsewhere, no error stands on the console,
// the content security policy is not violated, nothing has to be scrolled sideways, every anchor leads to its
// section, and axe finds nothing serious. A view of three dimensions turns by its buttons, and a wheel over
// it scrolls the page.

"use strict";
const fs = require("fs");
const path = require("path");
const { chromium } = require("playwright-core");

const GRAPHICS = ["--use-gl=swiftshader", "--enable-unsafe-swiftshader"]; // WebGL without a graphics card
const faults = [];

async function open(browser, file, width, colorScheme) {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme });
  const page = await context.newPage();
  const say = (text) => faults.push(`${file} at ${width} px, ${colorScheme}: ${text}`);
  page.on("pageerror", (error) => say(`error: ${error.message}`));
  page.on("console", (message) => message.type() === "error" && say(`console: ${message.text()}`));
  page.on("request", (request) => /^(file|data|blob):/.test(request.url()) || say(`request: ${request.url()}`));
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective));
  });
  await page.goto(`file://${path.resolve(file)}`);
  await page.waitForTimeout(2500); // until the figures are drawn
  return { page, say };
}

async function check(browser, file, width, colorScheme) {
  const { page, say } = await open(browser, file, width, colorScheme);
  const sideways = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (sideways > 0) say(`${sideways} pixels stand out to the side`);
  for (const plot of await page.$$(".plot")) {
    if (!(await plot.$(".main-svg, canvas"))) say(`${await plot.getAttribute("id")} is not drawn`);
  }
  for (const anchor of await page.$$("nav a")) {
    const target = await anchor.getAttribute("href");
    await anchor.click();
    if (!(await page.$(`section${target}`))) say(`${target} leads nowhere`);
  }
  await checkTurning(page, say);
  for (const violation of await page.evaluate(() => window.violations)) say(`policy: ${violation}`);
  await page.context().close();
}

async function checkTurning(page, say) {
  const plot = await page.$("figure:has(.turn) .plot");
  if (!plot) return;
  const readEye = () => page.evaluate(() => {
    const layout = document.querySelector("figure:has(.turn) .plot")._fullLayout;
    return JSON.stringify(layout ? layout.scene.camera.eye : "not drawn");
  });
  await plot.scrollIntoViewIfNeeded();
  const box = await plot.boundingBox();
  const [top, eye] = [await page.evaluate(() => window.scrollY), await readEye()];
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.mouse.wheel(0, -150);
  await page.waitForTimeout(500);
  if ((await page.evaluate(() => window.scrollY)) === top) say("a wheel over the view does not scroll the page");
  if ((await readEye()) !== eye) say("a wheel over the page moves the view");
  await page.click("text=Turn left");
  await page.waitForTimeout(500);
  if ((await readEye()) === eye) say("the view does not turn");
}

async function checkAccess(browser, file) {
  for (const colorScheme of ["light", "dark"]) {
    // axe is a script of its own, which the page's policy would refuse.
    const context = await browser.newContext({ bypassCSP: true, colorScheme });
    const page = await context.newPage();
    await page.goto(`file://${path.resolve(file)}`);
    await page.waitForTimeout(2500);
    await page.addScriptTag({ content: fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8") });
    const found = await page.evaluate(async () => (await window.axe.run()).violations);
    for (const { impact, id, nodes } of found) {
      if (["serious", "critical"].includes(impact)) faults.push(`${file}, ${colorScheme}: ${id}, ${nodes[0].html}`);
    }
    await context.close();
  }
}

(async () => {
  const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", ...GRAPHICS] });
  const files = process.argv.slice(2);
  for (const file of files) {
    for (const width of [1280, 390]) {
      for (const scheme of ["light", "dark"]) await check(browser, file, width, scheme);
    }
    await checkAccess(browser, file);
  }
  await browser.close();
  faults.forEach((fault) => console.error(fault));
  console.log(`${files.length} pages, ${faults.length} faults`);
  process.exit(faults.length ? 1 : 0);
})();
