'use strict';
// Looks at a website with Chromium: browser.js DIR EXPECTED.json, run by tests/site.rs. With
// pictures as third argument, a directory, it saves each page there. Prints one line per fault.
const fs = require('fs');
const path = require('path');
const { launch, serve } = require('./server.js');

const [dir, file, pictures] = process.argv.slice(2);
const expected = JSON.parse(fs.readFileSync(file, 'utf8'));
const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const faults = [];
const check = (is, text) => { if (!is) faults.push(text); };
const same = (a, b, text) => check(a === b, `${text}: ${JSON.stringify(a)} instead of ${JSON.stringify(b)}`);

// A page that reports what must not happen.
const open = async (context, origin) => {
  const page = await context.newPage();
  page.on('console', (message) => { if (message.type() === 'error') faults.push(`console at ${page.url()}: ${message.text()}`); });
  page.on('pageerror', (error) => faults.push(`error at ${page.url()}: ${error.message}`));
  page.on('dialog', (dialog) => { faults.push(`dialog at ${page.url()}: ${dialog.message()}`); dialog.dismiss(); });
  page.on('request', (request) => { if (!request.url().startsWith(origin) && !request.url().startsWith('blob:' + origin)) faults.push(`request of ${page.url()} to ${request.url()}`); });
  page.on('response', (response) => { if (response.status() >= 400) faults.push(`${response.status()} for ${response.url()}`); });
  return page;
};

const everyPage = async (browser, origin) => {
  for (const colorScheme of ['light', 'dark']) {
    const context = await browser.newContext({ colorScheme });
    const page = await open(context, origin);
    await page.addInitScript(() => sessionStorage.clear());
    for (const name of expected.pages) {
      await page.setViewportSize({ width: 1440, height: 900 });
      await page.goto(origin + name, { waitUntil: 'networkidle' });
      await page.evaluate(axe);
      for (const width of [1440, 768, 320]) {
        await page.setViewportSize({ width, height: 900 });
        const place = `${name} at ${width} px, ${colorScheme}`;
        const result = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
        for (const fault of result.violations) faults.push(`${place}: ${fault.id}: ${fault.nodes.map((node) => node.target).slice(0, 3).join(' ')} ${fault.nodes[0].failureSummary}`);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        check(wide <= 0, `${place} is ${wide} px too wide`);
        if (pictures) await page.screenshot({ path: path.join(pictures, `${name.replace(/[^a-z0-9]+/gi, '_') || 'home'}-${width}-${colorScheme}.png`), fullPage: true });
      }
    }
    await context.close();
  }
};

const digits = (text) => Number(text.replace(/\D/g, ''));

const titles = { status: 'Status', species: 'Species', release: 'Version', country: 'Country', network: 'Network', port: 'Port', services: 'Services' };
// Choices of a filter whose link is opened.
const MAX_LINKS = 8;
// The columns of the table, with what they are sorted by.
const word = (text) => text, minutes = (text) => digits(text) * ({ h: 60, d: 1440 }[text.at(-1)] || 1);
const orders = { status: word, species: word, agent: word, country: word, network: word, height: digits, latency: digits, up: digits, seen: minutes,
  address: (text) => /(\d+\.){3}\d+/.exec(text)[0].split('.').reduce((sum, byte) => sum * 256 + Number(byte), 0) };

const table = async (browser, origin) => {
  const page = await open(await browser.newContext({ acceptDownloads: true }), origin);
  const shown = async () => digits(await page.textContent('#n'));
  await page.goto(origin + 'nodes/', { waitUntil: 'networkidle' });
  same(await shown(), expected.nodes, 'nodes in the table');
  // Every filter: the counts beside its choices, and the link of each choice.
  const inOrder = (numbers) => numbers.sort((a, b) => a - b).join(' ');
  for (const [filter, values] of Object.entries(expected.filters)) {
    await page.goto(origin + 'nodes/', { waitUntil: 'networkidle' });
    const place = page.locator('#facets > details').filter({ has: page.locator('summary', { hasText: titles[filter] }) });
    if (await place.getAttribute('open') === null) await place.locator('summary').click();
    await place.locator('li').first().waitFor();
    const beside = (await place.locator('li small').allTextContents()).map(digits);
    same(inOrder(beside), inOrder(Object.values(values).filter((count) => count)), `counts of ${filter}`);
    for (const [value, count] of Object.entries(values).slice(0, MAX_LINKS)) {
      await page.goto(`${origin}nodes/?${new URLSearchParams({ [filter]: value })}`, { waitUntil: 'networkidle' });
      same(await shown(), count, `nodes with ${filter} ${value}`);
    }
  }
  for (const [agent, count] of expected.agents) {
    await page.goto(`${origin}nodes/?${new URLSearchParams({ agent })}`, { waitUntil: 'networkidle' });
    same(await shown(), count, `nodes with ${agent}`);
    same(await page.textContent('#rows .agent'), agent, 'the agent as shown');
  }
  await page.goto(origin + 'nodes/?species=none', { waitUntil: 'networkidle' });
  same(await shown(), 0, 'a link to what is not there');
  // A filter by keyboard alone, its link, and the way back.
  await page.goto(origin + 'nodes/', { waitUntil: 'networkidle' });
  await page.focus('#facets details:first-of-type input');
  await page.keyboard.press('Space');
  same(await shown(), expected.status.up, 'after a choice by keyboard');
  check(await page.isVisible('#clear'), 'the filters can be cleared');
  check(page.url().endsWith('?status=up'), `the link of a filter is ${page.url()}`);
  check(await page.evaluate(() => document.activeElement.type === 'checkbox'), 'the focus is lost');
  await page.goBack();
  same(await shown(), expected.nodes, 'after the way back');
  check(await page.isHidden('#clear'), 'there is nothing to clear');
  await page.goto(origin + 'nodes/?q=203.0.113.7', { waitUntil: 'networkidle' });
  check((await page.getAttribute('#what a', 'href')).endsWith('node/?203.0.113.7'), 'the way to why a node is not listed');
  await page.goto(origin + 'nodes/', { waitUntil: 'networkidle' });
  await page.fill('#q', expected.address);
  await page.press('#q', 'Enter');
  same(await shown(), 1, 'found by address');
  for (const [column, key] of Object.entries(orders)) {
    for (const sort of [column, '-' + column]) {
      await page.goto(`${origin}nodes/?sort=${sort}`, { waitUntil: 'networkidle' });
      const keys = (await page.locator('#rows .c-' + column).allTextContents()).map((text) => text === '–' ? null : key(text));
      const known = keys.filter((value) => value !== null), step = sort === column ? 1 : -1;
      check(known.length > 90 && keys.slice(0, known.length).every((value) => value !== null), `${sort}: what is not known comes last`);
      const wrong = known.findIndex((value, i) => i && step * (typeof value === 'string' ? known[i - 1].localeCompare(value) : known[i - 1] - value) > 0);
      same(wrong, -1, `${sort}: ${known[wrong - 1]} before ${known[wrong]}`);
      if (sort === '-height') same(known[0], expected.highest, 'the highest node comes first');
    }
  }
  await page.emulateMedia({ reducedMotion: 'reduce' }); // or it still scrolls
  // The way back from a node leads to the same place of a long list.
  await page.goto(origin + 'nodes/', { waitUntil: 'networkidle' });
  await page.click('#more');
  const listed = await page.locator('#rows tr').count();
  check(listed > 100, `"Show more" leads to ${listed} rows`);
  const link = page.locator('#rows tr:nth-child(110) a');
  await link.scrollIntoViewIfNeeded();
  const place = await page.evaluate(() => scrollY);
  await Promise.all([page.waitForURL('**/node/**'), link.click()]);
  await page.goBack({ waitUntil: 'networkidle' });
  same(await page.locator('#rows tr').count(), listed, 'rows after the way back');
  same(await page.evaluate(() => scrollY), place, 'the place after the way back');
  // A narrow page has no heading to sort by.
  await page.setViewportSize({ width: 320, height: 900 });
  await page.selectOption('#sort', '-height');
  check(page.url().endsWith('?sort=-height'), `the link of an order is ${page.url()}`);
  same(digits(await page.textContent('#rows tr:first-child .c-height')), expected.highest, 'the highest node on a narrow page');
  await page.setViewportSize({ width: 1440, height: 900 });
  check(await page.isHidden('#sort'), 'a wide page has headings');
  await page.goto(origin + 'nodes/', { waitUntil: 'networkidle' });
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#csv')]);
  const csv = fs.readFileSync(await download.path(), 'utf8');
  same(csv.trimEnd().split('\r\n').length, expected.nodes + 1, 'lines of the CSV');
  for (const [, quoted, bare] of csv.matchAll(/(?:^|,|\r\n)(?:"((?:[^"]|"")*)"|([^",\r]*))/g)) check(!/^[=+@-]/.test(quoted ?? bare), `a formula: ${quoted ?? bare}`);
  // A whole address is that of its host alone; a species is found, too.
  const [host, port] = expected.address.split(':');
  const byHost = async (q) => { await page.goto(`${origin}nodes/?${new URLSearchParams({ q })}`, { waitUntil: 'networkidle' }); return shown(); };
  same(await byHost(`${host} ${port}`), 1, 'found by host and port');
  same(await byHost(host.slice(2)), 0, 'an address is not found by its end');
  check(await byHost('TRB') >= expected.filters.species.TRB, 'found by species');
  same(await byHost('2001:db8::1'), 0, 'found by IPv6');
  check(await page.isVisible('#what a'), 'the way to why IPv6 is not listed');
  // The last answer is told as of now.
  await page.clock.setFixedTime(Date.now() + 5 * 86_400_000);
  await page.goto(origin + 'nodes/?sort=seen', { waitUntil: 'networkidle' });
  same(await page.textContent('#rows tr:first-child .c-seen'), '5 d', 'the age of old figures');
  // Without the data the plain list appears.
  await page.route('**/nodes.dat', (route) => route.fulfill({ body: 'no' }));
  await page.goto(origin + 'nodes/');
  await page.waitForFunction(() => document.querySelector('#plain tbody tr').checkVisibility());
  await page.context().close();
};

const lookup = async (browser, origin) => {
  const page = await open(await browser.newContext(), origin);
  await page.goto(`${origin}node/?${expected.address}`, { waitUntil: 'networkidle' });
  same(await page.textContent('#node h1 .addr'), expected.address, 'the node');
  check((await page.textContent('#node .lead')).startsWith('Listed as '), 'why it is listed');
  const rows = await page.locator('#node tbody tr').evaluateAll((rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent.replaceAll('\u202f', ',')).join(' ')));
  same(rows.join('; '), expected.results.join('; '), 'results of the node');
  await page.goto(`${origin}node/?127.0.0.77:8333`, { waitUntil: 'networkidle' });
  check((await page.textContent('#node h1')).endsWith(' is not listed'), 'an unknown node');
  await page.goto(`${origin}node/?<img src=x onerror=alert(1)>`, { waitUntil: 'networkidle' });
  check((await page.textContent('#node .lead')).startsWith('This is not an IPv4'), 'no address');
  const wrong = [['2001:db8::1', 'IPv6 is'], ['[2001:db8::1]:8333', 'IPv6 is'], ['abc.onion:8333', 'Tor is'], ['abc.b32.i2p', 'I2P is'],
    ['node.example.org', 'This is a host name'], ['203.0.113.7:65536', 'A port is'], ['203.0.113.7:0', 'A port is'], ['203.0.113', 'This is not an IPv4']];
  for (const [text, start] of wrong) {
    await page.goto(`${origin}node/?${encodeURIComponent(text)}`, { waitUntil: 'networkidle' });
    check((await page.textContent('#search + #node .lead')).startsWith(start), `the message about ${text}`);
    check(await page.isHidden('#reasons'), `reasons for ${text}`);
  }
  const [host, port] = expected.address.split(':');
  for (const text of [`${host} ${port}`, `${expected.address}:`]) {
    await page.goto(`${origin}node/?${encodeURIComponent(text)}`, { waitUntil: 'networkidle' });
    same(await page.textContent('#node h1 .addr'), expected.address, `the node of ${text}`);
  }
  await page.goto(`${origin}node/?nobody`, { waitUntil: 'networkidle' });
  check((await page.textContent('#node .lead')).startsWith('No node is listed by this name'), 'an unknown name');
  await page.goto(`${origin}node/?${host}`, { waitUntil: 'networkidle' });
  same(await page.textContent('#node h1 .addr'), expected.address, 'the only node of a host');
  await page.goto(`${origin}node/?${host}:1`, { waitUntil: 'networkidle' });
  check((await page.locator('#node .lead a').allTextContents()).includes(expected.address), 'the other ports of a host');
  await page.goto(`${origin}node/?10.0.0.1`, { waitUntil: 'networkidle' });
  check((await page.textContent('#node .lead')).startsWith('It is not a public address'), 'a private address');
  await page.goto(`${origin}node/?198.19.255.255`, { waitUntil: 'networkidle' });
  check((await page.textContent('#node .lead')).startsWith('It is not a public address'), 'a reserved address');
  check(await page.isHidden('#reasons'), 'reasons for a private address');
  await page.goto(`${origin}node/?198.20.0.0`, { waitUntil: 'networkidle' });
  check(await page.isVisible('#reasons'), 'reasons for an unknown address');
  await page.goto(`${origin}node/?${expected.watched}`, { waitUntil: 'networkidle' });
  check(page.url().endsWith('.html'), 'a TRB node has a page of its own');
  same(await page.locator('.events li').count(), expected.watched_events, 'events of the TRB node');
  await page.goto(origin + 'node/');
  const [name, file] = await page.$eval('#names option', (option) => [option.value, option.dataset.page]);
  await page.goto(`${origin}node/?${name.toUpperCase()}`, { waitUntil: 'networkidle' });
  check(page.url().endsWith('node/' + file), `the page of ${name}`);
  await page.context().close();
};

const curves = async (browser, origin) => {
  const page = await open(await browser.newContext(), origin);
  for (const [of, value, count] of expected.curves) {
    await page.goto(`${origin}history/?${new URLSearchParams({ of, value })}`, { waitUntil: 'networkidle' });
    same(await page.textContent('#caption b'), value === 'up' ? 'nodes up' : value, `the curve of ${of}`);
    same(digits((await page.textContent('#caption small')).split(' on')[0]), count, `${value} on the last day`);
  }
  for (const [query, start] of [['of=species&value=Nope', 'Nope has no curve'], ['of=nope', 'There is no history of nope']]) {
    await page.goto(`${origin}history/?${query}`, { waitUntil: 'networkidle' });
    check((await page.textContent('#caption')).startsWith(start), `a link to ${query}`);
    same(await page.locator('#chart *').count(), 0, `the curve of ${query}`);
  }
  await page.goto(`${origin}history/?of=species`, { waitUntil: 'networkidle' });
  // A dimension without a day: nothing of the former curve stays.
  await page.route('**/history-asn.csv.gz', (route) => route.fulfill({ body: 'value,day,nodes,lowest,highest\r\n' }));
  await page.selectOption('#dimension', 'asn');
  await page.waitForURL('**/history/?of=asn&years=0');
  for (const again of [false, true]) {
    if (again) await page.reload({ waitUntil: 'networkidle' });
    same(await page.textContent('#caption'), 'There is no history of this yet.', 'an empty history');
    same(await page.locator('#value option, #chart *').count(), 0, 'what is left of the former curve');
  }
  await page.context().close();
};

const feed = async (browser, origin) => {
  const page = await open(await browser.newContext(), origin);
  await page.goto(origin + 'about/');
  const found = await page.evaluate(async () => {
    const feed = new DOMParser().parseFromString(await (await fetch('../events/feed.atom')).text(), 'application/xml');
    return { error: feed.querySelector('parsererror')?.textContent || '', ids: [...feed.querySelectorAll('entry > id')].map((id) => id.textContent) };
  });
  same(found.error, '', 'the feed is XML');
  same(found.ids.length, expected.events, 'entries of the feed');
  same(new Set(found.ids).size, expected.events, 'different entries of the feed');
  await page.context().close();
};

const plain = async (browser, origin) => {
  const context = await browser.newContext({ javaScriptEnabled: false });
  const page = await open(context, origin);
  for (const name of expected.pages) {
    await page.goto(origin + name);
    check((await page.textContent('main')).trim().length > 200, `${name} is empty without a script`);
  }
  await page.goto(origin);
  const [up, trb] = await page.locator('h1 .big').allTextContents();
  same(digits(up), expected.status.up, 'nodes up on the home page');
  same(digits(trb), expected.trb_up, 'TRB nodes up on the home page');
  await page.goto(origin + 'nodes/');
  same(await page.locator('#plain tbody tr').count(), expected.watched_nodes, 'TRB and named nodes without a script');
  await context.close();
};

// What is printed is dark on white, without what only a screen can use.
const paper = async (browser, origin) => {
  const context = await browser.newContext({ colorScheme: 'dark' });
  const page = await open(context, origin);
  await page.emulateMedia({ media: 'print' });
  for (const name of expected.pages) {
    await page.goto(origin + name, { waitUntil: 'networkidle' });
    const found = await page.evaluate(() => {
      const light = (color) => Math.max(...color.match(/\d+/g).slice(0, 3).map(Number));
      const style = getComputedStyle(document.documentElement);
      const shown = [...document.querySelectorAll('nav, button:not(thead button), input, select')].filter((element) => element.offsetWidth > 1);
      return { paper: light(style.backgroundColor), ink: light(style.color), shown: shown.map((element) => element.outerHTML.slice(0, 60)).slice(0, 3) };
    });
    check(found.paper > 200 && found.ink < 60, `${name} is printed ${found.ink} on ${found.paper}`);
    same(found.shown.join(' '), '', `${name} prints what cannot be used on paper`);
  }
  await context.close();
};

serve(dir, async (origin) => {
  const browser = await launch();
  try {
    for (const part of [everyPage, table, lookup, curves, feed, plain, paper]) await part(browser, origin);
  } catch (error) {
    faults.push(String(error.stack || error));
  }
  await browser.close();
  for (const fault of [...new Set(faults)]) console.log(fault.replaceAll('\n', ' '));
  process.exitCode = faults.length ? 1 : 0;
});
