'use strict';
// One node: its page's data are in one of 256 files, told by a hash of the address.
(async () => {
  const place = document.getElementById('node'), q = document.getElementById('q');
  document.getElementById('search').addEventListener('submit', (event) => {
    event.preventDefault();
    location.search = '?' + encodeURIComponent(q.value.trim()).replace('%3A', ':');
  });
  let wanted = '';
  try { wanted = decodeURIComponent(location.search.slice(1).replace(/^q=/, '').replaceAll('+', ' ')).trim(); } catch { return; }
  if (!wanted) return;
  q.value = wanted;
  const show = (...kids) => {
    place.replaceChildren(...kids);
    document.querySelector('main').prepend(place);
  };
  // What is no address of a node has a message below the form, and no reasons.
  const refuse = (text) => {
    place.replaceChildren(make('p', { className: 'lead' }, text));
    document.getElementById('search').after(place);
    document.getElementById('reasons').hidden = true;
  };
  const named = [...document.querySelectorAll('#names option')].find((option) => option.value.toLowerCase() === wanted.toLowerCase());
  if (named) { location.replace(named.dataset.page); return; }
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:[\s:]+(\d+))?:?$/.exec(wanted);
  if (!match || match.slice(1, 5).some((part) => part > 255)) {
    const only = ' left out: this crawler looks at IPv4 only.';
    if (/^\[?[\da-f]*:[\da-f]*:[\da-f:.%\w]*(\]|$)/i.test(wanted)) refuse('IPv6 is' + only);
    else if (/\.onion\b/i.test(wanted)) refuse('Tor is' + only);
    else if (/\.i2p\b/i.test(wanted)) refuse('I2P is' + only);
    else if (/^[\w-]+(\.[\w-]+)*\.[a-z][\w-]*\.?(:\d*)?$/i.test(wanted)) refuse('This is a host name. Enter its IPv4 address.');
    else if (/^[^\d<>][^<>/:]*$/.test(wanted)) refuse('No node is listed by this name. An address has the form 203.0.113.7:8333.');
    else refuse('This is not an IPv4 address with a port, such as 203.0.113.7:8333.');
    return;
  }
  const bytes = match.slice(1, 5).map(Number), host = bytes.join('.'), port = Number(match[5] || place.dataset.port), address = host + ':' + port;
  if (port < 1 || port > 65535) { refuse('A port is a number from 1 to 65535.'); return; }
  const numberOf = (parts) => parts.reduce((sum, part) => sum * 256 + Number(part), 0);
  const isPublic = !place.dataset.reserved.split(' ').some((range) => {
    const [first, prefix] = range.split('/'), size = 2 ** (32 - prefix);
    return Math.floor(numberOf(bytes) / size) === numberOf(first.split('.')) / size;
  });
  let hash = 0x811c9dc5;
  for (const c of host) hash = Math.imul(hash ^ c.charCodeAt(0), 0x01000193);
  const shard = ((hash ^ hash >>> 8 ^ hash >>> 16 ^ hash >>> 24) & 255).toString(16).padStart(2, '0');
  let data;
  try { data = await (await unpacked(`${place.dataset.src}${shard}.dat`)).json(); } catch {
    show(make('p', { className: 'lead' }, 'The data cannot be loaded. Try again in a minute.'));
    return;
  }
  const node = Object.hasOwn(data.nodes, address) ? data.nodes[address] : null;
  document.title = document.title.replace(/^[^·]*/, address + ' ');
  const title = (...kids) => make('h1', { className: 'plain' }, ...kids);
  document.querySelector('#ask h1').replaceWith(make('h2', {}, 'Another node'));
  if (!node) {
    const others = Object.keys(data.nodes).filter((key) => key.startsWith(host + ':'));
    if (!match[5] && others.length === 1) { location.replace('?' + others[0]); return; }
    const links = others.flatMap((key, i) => [i ? ', ' : '', make('a', { href: '?' + key }, key)]);
    let why = 'It has never answered this crawler, or not for long.';
    if (others.length) why = 'This host is listed with another port: ';
    else if (!isPublic) why = 'It is not a public address: it lies in a private or reserved range, and is never probed.';
    const reasons = document.getElementById('reasons');
    reasons.hidden = others.length > 0 || !isPublic;
    document.getElementById('ask').before(reasons);
    document.getElementById('public').remove();
    show(title(make('span', { className: 'addr' }, address), ' is not listed'), make('p', { className: 'lead' }, why, ...links));
    return;
  }
  if (node.page) { location.replace(node.page); return; }
  document.getElementById('reasons').hidden = true;
  const svg = (tag, attributes, ...kids) => {
    const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...kids);
    return element;
  };
  const strip = () => {
    const d = ['', '', '', ''], days = [...node.days], known = days.filter((level) => level !== '-');
    for (const { 0: run, index } of node.days.matchAll(/(\d)\1*/g)) d[run[0]] += `M${index * 10 + 1} 0h${run.length * 10 - 2}`;
    const label = `answered throughout in ${known.filter((level) => level === '3').length} of ${known.length} days`;
    return svg('svg', { class: 'strip', viewBox: `0 0 ${days.length * 10} 10`, preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
      ...d.map((path, level) => svg('path', { class: 'l' + level, d: path })));
  };
  const facts = (rows) => make('dl', { className: 'facts' }, ...rows.flatMap(([key, value]) => [make('dt', {}, key), make('dd', {}, value)]));
  const cell = (text) => make('td', {}, text);
  const ms = (value) => value < 0 ? '–' : value + ' ms';
  const time = (at) => new Date(at * 1000).toUTCString().slice(5, 22).replace(/^0/, '');
  // Times and heights are differences to the ones before.
  const added = (differences) => { let sum = 0; return differences.map((by) => sum += by); };
  const [times, heights, outcomes, connected, versions, peers] = node.results.map((column, i) => i < 2 ? added(column) : column);
  const rows = times.map((at, i) => make('tr', {}, make('th', { scope: 'row' }, time(at)), cell(data.outcomes[outcomes[i]] || ''),
    cell(ms(connected[i])), cell(ms(versions[i])), cell(heights[i] < 0 ? '–' : grouped(heights[i])), cell(peers[i] < 0 ? '' : grouped(peers[i]))));
  const heads = ['Time (UTC)', 'Outcome', 'Connected in', 'Version after', 'Height', 'Peers sent'].map((text) => make('th', { scope: 'col' }, text));
  const table = make('div', { className: 'scroll', tabIndex: 0, ariaLabel: 'Results, table' }, make('table', { className: 'list tight results' }, make('thead', {}, make('tr', {}, ...heads)), make('tbody', {}, ...rows)));
  table.setAttribute('role', 'region');
  const number = node.days.length, marks = [number - 1, number >> 1, 0].map((ago) => make('span', {}, date(data.day - ago * 86400)));
  const figure = make('figure', {}, make('figcaption', {}, make('b', {}, 'By days'), ' ', make('small', {}, 'in which passes it answered or was full')), strip(), make('p', { className: 'axis' }, ...marks));
  Object.assign(figure.dataset, { last: data.day, step: 86400, number });
  show(title(node.name ? node.name + ' ' : '', make('span', { className: 'addr' }, address), ' ', make('span', { className: 'st ' + node.status }, node.status)),
    make('p', { className: 'lead' }, node.why),
    ...(node.advice ? [make('p', { className: 'lead' }, node.advice)] : []),
    figure, document.getElementById('key').content,
    make('section', { className: 'two' }, make('div', {}, make('h2', {}, 'What it says'), facts(node.says)), make('div', {}, make('h2', {}, 'How often it answers'), facts(node.uptime))),
    make('h2', {}, 'Last results'), table);
})();
