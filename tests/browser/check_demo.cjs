// Uses a running fairkd-demo in a browser as a person would, and fails where a person would be hindered.
//
//   npm install --no-save playwright-core axe-core
//   fairkd-demo RUN --port 7860
//   CHROMIUM=/usr/bin/chromium node tests/browser/check_demo.cjs http://127.0.0.1:7860 IMAGE.png [SCREENSHOTS]
//
// At 1280 and 390 pixels, light and dark: a test image is chosen, then IMAGE is uploaded, and every model
// answers each; the test images are narrowed to what debiasing mended; a text and a file that is too large
// get a message. Nothing is loaded from elsewhere, no error stands on the console, nothing has to be scrolled
// sideways, and axe finds nothing serious before and after an answer.

"use strict";
const path = require("path");
const { launch, open, checkWidth, checkAccess, finish } = require("./shared.cjs");

const [address, image, screenshots] = process.argv.slice(2);
const faults = [];
const isOwn = (url) => url.startsWith(address) || /^(data|blob):/.test(url);

// The first answer of each model, such as "7".
const readAnswers = (page) => page.$$eval("[data-testid=label-output-value]", (all) => all.map((e) => e.textContent.trim()));

async function waitForAnswers(page, say, what, truth) {
  try {
    await page.waitForFunction(
      (text) => [...document.querySelectorAll("textarea, input")].some((e) => e.value.includes(text)), truth, { timeout: 20000 },
    );
    await page.waitForTimeout(500);
  } catch {
    say(`${what}: the truth does not say "${truth}"`);
  }
  const answers = await readAnswers(page);
  if (answers.length < 2 || answers.some((text) => !text)) say(`${what}: answers are ${JSON.stringify(answers)}`);
  for (const bars of await page.$$("[data-testid$=-confidence-set]")) {
    if (!(await bars.textContent()).includes("%")) say(`${what}: a bar has no share`);
  }
  return answers;
}

async function chooseExample(page) {
  await page.locator(".grid-wrap button, .thumbnail-item").first().click();
}

async function refuse(page, say, what, file, message) {
  await page.setInputFiles("input[type=file]", file);
  try {
    await page.getByText(message).first().waitFor({ timeout: 20000 });
  } catch {
    say(`${what}: no message "${message}"`);
  }
}

async function clearUpload(page) {
  const clear = page.getByLabel(/clear|remove this file/i).first();
  if (await clear.count()) await clear.click();
  await page.waitForTimeout(300);
}

async function check(browser, width, colorScheme) {
  const say = (text) => faults.push(`${width} px, ${colorScheme}: ${text}`);
  const page = await open(browser, address, { width, colorScheme, isOwn, say });
  await checkWidth(page, say);
  const caption = (await page.locator(".caption-label").first().textContent()).trim();
  await chooseExample(page);
  await waitForAnswers(page, say, "test image", caption);
  await page.setInputFiles("input[type=file]", image);
  await waitForAnswers(page, say, "upload", "this image is yours");
  await checkWidth(page, say);
  if (screenshots) {
    await page.screenshot({ path: path.join(screenshots, `demo-${width}-${colorScheme}.png`), fullPage: true });
  }
  const readCount = () => page.getByLabel("Found").inputValue();
  const all = await readCount();
  await page.getByLabel("Changed by debiasing").click();
  await page.getByRole("option", { name: "mended by debiasing" }).click();
  await page.waitForTimeout(1500);
  const mended = await readCount();
  if (mended === all || !mended.includes("page 1 of")) say(`"mended by debiasing" finds ${mended}`);
  await clearUpload(page);
  await refuse(page, say, "a text", { name: "a.png", mimeType: "image/png", buffer: Buffer.from("hello") }, /not an image/);
  await clearUpload(page);
  const large = { name: "large.png", mimeType: "image/png", buffer: Buffer.alloc(30 * 2 ** 20) };
  await refuse(page, say, "a large file", large, /maximum.*size|too large|exceed/i);
  await page.context().close();
}

(async () => {
  const browser = await launch();
  for (const width of [1280, 390]) {
    for (const scheme of ["light", "dark"]) await check(browser, width, scheme);
  }
  await checkAccess(browser, address, (text) => faults.push(text));
  await checkAccess(browser, address, (text) => faults.push(`with an answer, ${text}`), async (page) => {
    await chooseExample(page);
    await page.waitForTimeout(3000);
  });
  await browser.close();
  finish("the demo", faults);
})();
