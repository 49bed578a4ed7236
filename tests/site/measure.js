'use strict';
// Measures a website with Chromium: measure.js DIR, run by benches/site.rs.
const zlib = require('zlib');
const { launch, serve } = require('./server.js');

const SLOWED = 6;
const REPETITIONS = 5;

const weightOfHome = async (browser, origin) => {
  const context = await browser.newContext();
  const page = await context.newPage();
  const bodies = [];
  page.on('response', (response) => bodies.push(response.body()));
  await page.goto(origin, { waitUntil: 'networkidle' });
  const bytes = await Promise.all(bodies);
  const sum = (size) => (bytes.reduce((all, body) => all + size(body), 0) / 1000).toFixed(0);
  console.log(`home page with style and script: ${bytes.length} files, ${sum((body) => body.length)} kB (bound: 150), ${sum((body) => zlib.gzipSync(body, { level: 9 }).length)} kB compressed (bound: 40)`);
  await context.close();
};

// From the click on the home page to the first rows, parsing and unpacking of all nodes included.
const timeOfTable = async (browser, origin) => {
  const [times, scripts] = [[], []];
  for (let i = 0; i < REPETITIONS; i++) {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(origin, { waitUntil: 'networkidle' });
    await page.addInitScript(() => {
      new MutationObserver((_, observer) => {
        if (document.querySelector('#rows tr')) { globalThis.ready = performance.now(); observer.disconnect(); }
      }).observe(document, { childList: true, subtree: true });
    });
    const session = await context.newCDPSession(page);
    await session.send('Emulation.setCPUThrottlingRate', { rate: SLOWED });
    await page.goto(origin + 'nodes/');
    await page.waitForSelector('#rows tr');
    scripts.push(await page.evaluate(() => Number(document.getElementById('app').dataset.ready)));
    times.push(await page.evaluate(() => globalThis.ready));
    await context.close();
  }
  const median = (list) => list.sort((a, b) => a - b)[REPETITIONS >> 1].toFixed(0);
  console.log(`table of nodes, processor slowed ${SLOWED} times: ready ${median(times)} ms after the click, ${median(scripts)} after its script began, medians of ${REPETITIONS} (bound: 800)`);
};

serve(process.argv[2], async (origin) => {
  const browser = await launch();
  try {
    await weightOfHome(browser, origin);
    await timeOfTable(browser, origin);
  } finally {
    await browser.close();
  }
});
