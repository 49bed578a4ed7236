'use strict';
// The history of any value: reads the CSV of a dimension and draws a curve with its band.
(() => {
  const any = document.getElementById('any');
  if (!any || !window.DecompressionStream) return;
  const $ = (id) => document.getElementById(id), cache = {}, DAY = 86400000;
  const svg = (tag, attributes, ...kids) => {
    const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...kids);
    return element;
  };
  // value,day,nodes,lowest,highest; a value may be quoted, and marked as no formula.
  const parse = (text) => {
    const days = [], values = new Map();
    let start = text.indexOf('\r\n') + 2;
    while (start < text.length) {
      const end = text.indexOf('\r\n', start), line = text.slice(start, end < 0 ? text.length : end);
      start = end < 0 ? text.length : end + 2;
      const cells = line.split(',').slice(-4);
      let value = line.slice(0, line.length - cells.join(',').length - 1);
      if (value[0] === '"') value = value.slice(1, -1).replaceAll('""', '"');
      value = value.replace(/^'(?=[=+\-@])/, '');
      if (value === '(days)' && cells[1] === '') { days.push(Date.parse(cells[0])); continue; }
      let rows = values.get(value);
      if (!rows) values.set(value, rows = new Map());
      rows.set(Date.parse(cells[0]), cells.slice(1).map(Number));
    }
    return { days, values };
  };
  const load = (dimension) => cache[dimension] ||= unpacked(`${any.dataset.src}history-${dimension}.csv.gz`).then((answer) => answer.text()).then(parse);
  const words = { peers: { sent: 'nodes that return peers' }, status: { up: 'nodes up' } };
  const services = any.dataset.services.split(' ');
  // Bit 0 first; a double cannot hold them.
  const servicesOf = (bits) => services.filter((_, bit) => BigInt(bits) >> BigInt(bit) & 1n).join(' ') || 'none';
  const word = (value) => {
    const dimension = $('dimension').value;
    if (dimension === 'services' && /^\d+$/.test(value)) return `${servicesOf(value)} (${value})`;
    return words[dimension]?.[value] || value || (dimension === 'user_agent' ? '(empty)' : '(none)');
  };
  const nice = (max) => {
    if (max <= 1) return [1, 1];
    const power = 10 ** Math.floor(Math.log10(max));
    const steps = [[1, 2], [1.5, 3], [2, 2], [3, 3], [4, 4], [5, 5], [6, 3], [8, 4], [10, 2]];
    const [factor, parts] = steps.find(([f, p]) => f * power >= max && Number.isInteger(f * power / p)) || [10, 2];
    return [factor * power, parts];
  };
  const mean = (n) => n < 100 && Math.abs(n - Math.round(n)) >= .05 ? n.toFixed(1) : grouped(Math.round(n));
  // A scale starts at zero, unless all values are far above it.
  const scaleOf = (low, high) => {
    if (low < high * .5 || high <= 20 || high - low < 4) { const [top, parts] = nice(high); return [0, top, parts]; }
    const [step] = nice(Math.max(1, (high - low) * 1.1 / 4)), bottom = Math.floor(low / step) * step, parts = Math.max(1, Math.ceil((high - bottom) / step));
    return [bottom, bottom + step * parts, parts];
  };
  const draw = (data, value, years) => {
    const rows = data.values.get(value) || new Map();
    const to = data.days.at(-1), from = years > 0 ? Math.max(data.days[0], to - years * 365 * DAY) : data.days[0];
    const shown = data.days.filter((day) => day >= from), number = Math.min(200, Math.round((to - from) / DAY) + 1);
    // Equal parts of time; one without a day is a gap.
    const buckets = Array.from({ length: number }, () => []);
    for (const day of shown) buckets[Math.min(number - 1, Math.floor((day - from) / (to - from + DAY) * number))].push(day);
    const points = [];
    let gap = false;
    for (const days of buckets) {
      if (!days.length) { gap = true; continue; }
      const part = days.map((day) => rows.get(day) || [0, 0, 0]);
      points.push({ at: days.at(-1), mean: part.reduce((sum, row) => sum + row[0], 0) / part.length, low: Math.min(...part.map((row) => row[1])), high: Math.max(...part.map((row) => row[2])), gap });
      gap = false;
    }
    const high = Math.max(1, ...points.map((point) => point.high)), low = Math.min(...points.map((point) => point.low)), [bottom, top, parts] = scaleOf(low, high);
    const H = 220, plot = H - 22, x = (at) => to > from ? (at - from) / (to - from) : 1, y = (n) => (plot - 16) * (1 - (n - bottom) / (top - bottom)) + 16;
    const grid = svg('g', { class: 'grid' }), labels = svg('g', { class: 'labels' });
    for (let i = 0; i <= parts; i++) {
      const line = bottom + (top - bottom) * i / parts, at = Math.round(y(line));
      grid.append(svg('line', { x2: '100%', y1: at, y2: at }));
      labels.append(svg('text', { class: 'y', x: -8, y: at + 4 }, grouped(line)));
    }
    const span = (to - from) / DAY, marks = [];
    for (let at = new Date(from); at <= to; at = new Date(+at + DAY)) {
      if (span > 500 ? at.getUTCMonth() === 0 && at.getUTCDate() === 1 : span > 60 ? at.getUTCDate() === 1 : Math.round((+at - from) / DAY) % 5 === 2) marks.push(at);
    }
    // A label at the end needs room.
    if (span <= 60 && x(+marks.at(-1)) > .96 && x(+marks.at(-2)) > .82) marks.splice(-2, 1);
    marks.forEach((at, i) => labels.append(svg('text', { class: 'x' + (i % 2 ? ' odd' : '') + (x(+at) > .96 ? ' end' : ''), x: (x(+at) * 100).toFixed(1) + '%', y: H - 4 }, at.toLocaleDateString('en', span > 500 ? { year: 'numeric', timeZone: 'UTC' } : span > 60 ? { month: 'short', timeZone: 'UTC' } : { day: 'numeric', month: 'short', timeZone: 'UTC' }))));
    const X = (p) => (x(p.at) * 1000).toFixed(0), Y = (n) => (y(n) * 10).toFixed(0);
    let line = '', band = '', dots = '', piece = [];
    const close = () => {
      if (piece.length === 1) dots += 'M' + X(piece[0]) + ' ' + Y(piece[0].mean) + 'h0';
      if (piece.length > 1) band += 'M' + piece.map((p) => X(p) + ' ' + Y(p.high)).concat(piece.toReversed().map((p) => X(p) + ' ' + Y(p.low))).join('L') + 'z';
      piece = [];
    };
    for (const p of points) { if (p.gap) close(); line += (piece.length ? 'L' : 'M') + X(p) + ' ' + Y(p.mean); piece.push(p); }
    close();
    const hints = svg('g', { class: 'hints' }), width = 100 / points.length;
    points.forEach((p, i) => hints.append(svg('rect', { x: (i * width).toFixed(2) + '%', width: width.toFixed(2) + '%' }, svg('title', {}, `${date(p.at / 1000)}: ${mean(p.mean)} (${grouped(p.low)} to ${grouped(p.high)})`))));
    const last = rows.get(to) || [0], caption = `${grouped(Math.round(last[0]))} on the last day (mean), ${grouped(low)} to ${grouped(high)} in this time`;
    const trb = $('dimension').value === 'species' && value === 'TRB' ? ' trb' : '';
    const curve = svg('svg', { viewBox: `0 0 1000 ${plot * 10}`, preserveAspectRatio: 'none', width: '100%', height: plot }, svg('path', { class: 'band' + trb, d: band }), svg('path', { class: 'line' + trb, d: line }), svg('path', { class: 'line dot' + trb, d: dots }));
    $('chart').replaceChildren(svg('svg', { class: 'chart', width: '100%', height: H, role: 'img', 'aria-label': `${word(value)}: ${caption}` }, grid, curve, labels, hints));
    $('caption').replaceChildren(make('b', {}, word(value)), ' ', make('small', {}, caption));
  };
  const update = async (wanted) => {
    const dimension = $('dimension').value;
    let data;
    try { data = await load(dimension); } catch { data = { days: [] }; }
    if (dimension !== $('dimension').value) return;
    $('value').disabled = !data.days.length;
    if (!data.days.length) {
      for (const id of ['value', 'chart']) $(id).replaceChildren();
      $('value').dataset.of = '';
      $('caption').textContent = 'There is no history of this yet.';
      any.dataset.ready = '1';
      return;
    }
    const last = data.days.at(-1), number = (value) => data.values.get(value).get(last)?.[0] || 0;
    if ($('value').dataset.of !== dimension) {
      const values = [...data.values.keys()].sort((a, b) => number(b) - number(a) || (a < b ? -1 : 1));
      $('value').replaceChildren(...values.map((value) => make('option', { value }, word(value))));
      $('value').dataset.of = dimension;
    }
    if (wanted !== undefined && !data.values.has(wanted)) {
      $('value').selectedIndex = -1;
      $('caption').replaceChildren(make('b', {}, word(wanted)), ' ', make('small', {}, 'has no curve of its own. A value that few nodes have counts as (other).'));
      $('chart').replaceChildren();
      any.dataset.ready = '1';
      return;
    }
    if (wanted !== undefined) $('value').value = wanted;
    if ($('value').selectedIndex < 0) return;
    draw(data, $('value').value, Number($('years').value));
    any.dataset.ready = '1';
  };
  const link = () => {
    const parts = { of: $('dimension').value, value: $('value').value, years: $('years').value };
    if ($('value').disabled) delete parts.value;
    history.replaceState(null, '', '?' + new URLSearchParams(parts));
  };
  const read = () => {
    const p = new URLSearchParams(location.search), has = (id, value) => [...$(id).options].some((option) => option.value === value);
    if (p.has('of') && !has('dimension', p.get('of'))) {
      $('caption').textContent = 'There is no history of ' + p.get('of');
      any.dataset.ready = '1';
      return;
    }
    if (p.has('of')) $('dimension').value = p.get('of');
    if (has('years', p.get('years'))) $('years').value = p.get('years');
    return update(p.get('value') ?? undefined);
  };
  $('dimension').addEventListener('change', async () => { await update(); link(); });
  $('value').addEventListener('change', () => { update(); link(); });
  $('years').addEventListener('change', () => { update(); link(); });
  $('choose').addEventListener('submit', (event) => event.preventDefault());
  addEventListener('popstate', read);
  any.hidden = false;
  if (location.search) read(); else update('Core');
})();
