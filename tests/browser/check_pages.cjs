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
const path = require("path");
const { launch, open, checkWidth, checkAccess, finish } = require("./shared.cjs");

const faults = [];
const isOwn = (url) => /^(file|data|blob):/.test(url);

async function check(browser, file, width, colorScheme) {
  const say = (text) => faults.push(`${file} at ${width} px, ${colorScheme}: ${text}`);
  const page = await open(browser, `file://${path.resolve(file)}`, { width, colorScheme, isOwn, say });
  await checkWidth(page, say);
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

(async () => {
  const browser = await launch();
  const files = process.argv.slice(2);
  for (const file of files) {
    for (const width of [1280, 390]) {
      for (const scheme of ["light", "dark"]) await check(browser, file, width, scheme);
    }
    await checkAccess(browser, `file://${path.resolve(file)}`, (text) => faults.push(`${file}, ${text}`));
  }
  await browser.close();
  finish(`${files.length} pages`, faults);
})();
