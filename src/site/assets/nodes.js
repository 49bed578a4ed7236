'use strict';
// The table of nodes: columns of small numbers and lists of words, filtered in one pass over all rows.
(async () => {
  const app = document.getElementById('app'), t0 = performance.now();
  const $ = (id) => document.getElementById(id);
  let data;
  try {
    data = await (await unpacked(app.dataset.src)).json();
  } catch { return; } // The plain page stays.
  const t1 = performance.now();
  const N = data.count, W = data.words, C = {};
  for (const [name, values] of Object.entries(data.columns)) C[name] = Int32Array.from(values);
  const host = new Uint32Array(N);
  for (let i = 0, h = 0; i < N; i++) host[i] = h += data.hosts[i];
  const address = (i) => { const h = host[i]; return `${h >>> 24}.${h >>> 16 & 255}.${h >>> 8 & 255}.${h & 255}:${W.port[C.port[i]]}`; };
  // Minutes from the pass until now.
  const since = Math.max(0, Math.floor((Date.now() / 1000 - data.at) / 60));
  const ago = (m) => m < 0 ? 'never' : m < 90 ? `${m} min` : m < 2880 ? `${Math.round(m / 60)} h` : `${Math.round(m / 1440)} d`;

  const hasLookup = document.querySelector('main a[href="../node/"]');
  const hasPlaces = W.country.some((w) => w[0]);
  const facets = ['status', 'species', 'release', 'agent', 'country', 'network', 'port', 'services'].filter((f) => hasPlaces || (f !== 'country' && f !== 'network'));
  const titles = { status: 'Status', species: 'Species', release: 'Version', agent: 'User agent', country: 'Country', network: 'Network', port: 'Port', services: 'Services' };
  const word = { country: (w) => w[1], network: (w) => w[1] ? `${w[1]} (AS${w[0]})` : w[0] ? `AS${w[0]}` : '', services: (w) => w[1], agent: (w) => w || '(empty)' };
  const key = { country: (w) => w[0], network: (w) => String(w[0]), services: (w) => String(w[0]) };
  const show = (f, k) => (word[f] || String)(W[f][k]), keyOf = (f, k) => (key[f] || String)(W[f][k]);
  const headRow = $('heads').insertRow(), heads = [['address', 'Node'], ['status', 'Status'], ['species', 'Species'], ['agent', 'User agent'], ['country', 'Country'], ['network', 'Network'], ['height', 'Height', 1], ['latency', 'Connected in', 1], ['up', 'Up, 30 d', 1], ['seen', 'Last answer', 1]].filter(([by]) => hasPlaces || (by !== 'country' && by !== 'network'));

  // TRB before others, names by the alphabet before none, as on the home page.
  const isOther = W.species.map((w) => Number(w !== 'TRB')), nameRank = new Int32Array(W.name.length);
  [...W.name.keys()].sort((a, b) => (W.name[a] === '') - (W.name[b] === '') || (W.name[a] < W.name[b] ? -1 : 1)).forEach((k, rank) => { nameRank[k] = rank; });

  const chosen = Object.fromEntries(facets.map((f) => [f, new Set()]));
  let query = '', sort = '', shown = 100, order = new Uint32Array(N), matched = 0;

  const read = () => {
    const p = new URLSearchParams(location.search);
    for (const f of facets) {
      chosen[f].clear();
      const wanted = new Set(p.getAll(f));
      if (wanted.size) for (let k = 0; k < W[f].length; k++) if (wanted.has(keyOf(f, k))) chosen[f].add(k);
      if (wanted.size && !chosen[f].size) chosen[f].add(-1); // a link to what is not there shows nothing, not everything
    }
    query = p.get('q') || ''; sort = p.get('sort') || ''; $('q').value = query;
  };
  // The way back leads to the same place of a long list.
  const keep = () => history.replaceState({ shown, y: scrollY }, '');
  const write = (isNew) => {
    if (isNew) keep();
    const p = new URLSearchParams();
    for (const f of facets) for (const k of chosen[f]) if (k >= 0) p.append(f, keyOf(f, k));
    if (query) p.set('q', query);
    if (sort) p.set('sort', sort);
    const s = String(p);
    history[isNew ? 'pushState' : 'replaceState'](null, '', s ? '?' + s : location.pathname);
  };
  // An address and its port may be apart.
  const sought = () => query.trim().replace(/^(\d+(?:\.\d+){3})[\s:]+(\d*)$/, (_, host, port) => port ? host + ':' + port : host);
  const finder = () => {
    const q = sought().toLowerCase();
    if (!q) return null;
    const has = (f, text) => { const hit = new Uint8Array(W[f].length); W[f].forEach((w, k) => { hit[k] = text(w).toLowerCase().includes(q); }); return hit; };
    const a = has('agent', String), n = has('name', String), w = has('network', word.network), s = has('species', String), r = has('release', String);
    // A part of an address is its beginning; a whole host has all of its ports.
    const host = /^\d+(\.\d+){3}$/.test(q), start = host ? q + ':' : /^[\d.:]+$/.test(q) ? q : null;
    return (i) => a[C.agent[i]] || n[C.name[i]] || w[C.network[i]] || s[C.species[i]] || r[C.release[i]] || (start !== null && address(i).startsWith(start));
  };

  const filter = () => {
    const find = finder(), active = facets.map((f) => { const s = chosen[f]; if (!s.size) return null; const a = new Uint8Array(W[f].length); for (const k of s) if (k >= 0) a[k] = 1; return a; });
    const counts = facets.map((f) => new Uint32Array(W[f].length)), cols = facets.map((f) => C[f]);
    matched = 0;
    for (let i = 0; i < N; i++) {
      if (find && !find(i)) continue;
      let misses = 0, where = -1;
      for (let f = 0; f < active.length; f++) if (active[f] && !active[f][cols[f][i]]) { misses++; where = f; if (misses > 1) break; }
      if (misses === 0) { order[matched++] = i; for (let f = 0; f < cols.length; f++) counts[f][cols[f][i]]++; }
      else if (misses === 1) counts[where][cols[where][i]]++;
    }
    const down = sort[0] === '-', by = sort.replace('-', '');
    if (!by) order.subarray(0, matched).sort((a, b) => C.page[b] - C.page[a] || C.page[a] * (isOther[C.species[a]] - isOther[C.species[b]]) || C.status[a] - C.status[b] || nameRank[C.name[a]] - nameRank[C.name[b]] || a - b);
    else {
      let v = { address: null, up: C.up, height: C.height, latency: C.latency, seen: C.seen }[by];
      if (['status', 'species', 'agent', 'country', 'network'].includes(by)) { // words by the alphabet
        const rank = new Int32Array(W[by].length), ks = [...rank.keys()].sort((x, y) => show(by, x).localeCompare(show(by, y)));
        ks.forEach((k, r) => { rank[k] = r; }); v = new Int32Array(N); for (let i = 0; i < N; i++) v[i] = rank[C[by][i]];
      }
      const o = order.subarray(0, matched);
      if (v) { const s = down ? -1 : 1; o.sort((a, b) => { const x = v[a], y = v[b]; if (x < 0 !== y < 0) return x < 0 ? 1 : -1; return s * (x - y) || a - b; }); } else if (down) o.reverse();
    }
    return counts;
  };

  const boxes = {};
  const buildFacets = () => {
    for (const f of facets) {
      const d = make('details', { open: f === 'status' || f === 'species' || chosen[f].size > 0 }, make('summary', {}, titles[f], ' ', make('small', {})));
      const list = make('ul', {}); d.append(list); $('facets').append(d);
      boxes[f] = { d, list, rows: null };
      d.addEventListener('toggle', () => { if (d.open) paint(f); });
    }
  };
  let counts;
  const paint = (f) => {
    const b = boxes[f], c = counts[facets.indexOf(f)];
    b.d.querySelector('small').textContent = chosen[f].size ? `(${chosen[f].size} chosen)` : '';
    if (!b.d.open) return;
    const ks = [...c.keys()].filter((k) => c[k] || chosen[f].has(k)).sort((x, y) => f === 'status' ? x - y : chosen[f].has(y) - chosen[f].has(x) || c[y] - c[x]).slice(0, 200);
    // Whoever chooses with the keyboard stays where they are.
    const focused = b.list.contains(document.activeElement) ? document.activeElement.value : null;
    b.list.replaceChildren(...ks.map((k) => {
      const box = make('input', { type: 'checkbox', checked: chosen[f].has(k), value: k });
      box.addEventListener('change', () => { chosen[f].delete(-1); box.checked ? chosen[f].add(k) : chosen[f].delete(k); update(); });
      return make('li', {}, make('label', { className: c[k] ? '' : 'zero' }, box, make('span', {}, show(f, k) || '(none)'), make('small', {}, grouped(c[k]))));
    }));
    if (focused !== null) b.list.querySelector(`[value="${focused}"]`)?.focus();
  };
  const row = (i) => {
    const a = address(i), name = W.name[C.name[i]], status = W.status[C.status[i]];
    const link = make('a', { href: C.page[i] ? `../node/${a.replace(':', '-')}.html` : `../node/?${a}` }, name ? name + ' ' : '', make(name ? 'small' : 'span', { className: 'addr' }, a));
    const up = C.up[i] < 0 ? '–' : C.up[i] + ' %', or = (n, unit) => n < 0 ? '–' : grouped(n) + unit;
    const cells = { status: make('span', { className: 'st ' + status }, status), species: W.species[C.species[i]], agent: show('agent', C.agent[i]), country: show('country', C.country[i]), network: show('network', C.network[i]), height: or(C.height[i], ''), latency: or(C.latency[i], ' ms'), up, seen: ago(C.seen[i] < 0 ? -1 : C.seen[i] + since) };
    const th = make('th', { scope: 'row', className: 'c-address' }, link);
    return make('tr', {}, th, ...heads.slice(1).map(([by, , num]) => make('td', { className: 'c-' + by + (num ? ' num' : '') + (by === 'agent' ? ' agent' : '') }, cells[by])));
  };
  const rows = (from) => { const f = document.createDocumentFragment(); for (let k = from; k < Math.min(shown, matched); k++) f.append(row(order[k])); return f; };
  const update = (how = 'new', former = {}) => {
    counts = filter(); shown = former?.shown || 100;
    const active = facets.reduce((n, f) => n + chosen[f].size, 0); $('active').textContent = active ? `(${active} chosen)` : '';
    $('n').textContent = grouped(matched);
    $('what').textContent = matched === N ? 'nodes known, all of them' : `of ${grouped(N)} nodes known`;
    const q = sought();
    if (!matched && hasLookup && q) $('what').append('. ', make('a', { href: '../node/?' + encodeURIComponent(q).replace('%3A', ':') }, /[.:]/.test(q) ? 'Not listed: why?' : 'Look for a node of this name'));
    $('clear').hidden = !active && !query && !sort;
    $('rows').replaceChildren(rows(0)); $('more').hidden = shown >= matched;
    for (const f of facets) paint(f);
    for (const th of headRow.children) { const by = th.dataset.by; sort.replace('-', '') === by ? th.setAttribute('aria-sort', sort[0] === '-' ? 'descending' : 'ascending') : th.removeAttribute('aria-sort'); }
    $('sort').value = sort;
    if (how !== 'read') write(how === 'new');
    else if (former?.y) scrollTo({ top: former.y, behavior: 'instant' });
  };
  $('sort').append(make('option', { value: '' }, 'TRB and named first'));
  for (const [by, title, num] of heads) {
    for (const down of num && by !== 'seen' ? ['-', ''] : ['', '-']) $('sort').append(make('option', { value: down + by }, title + (down ? ' ↓' : ' ↑')));
    const b = make('button', { type: 'button' }, title);
    const th = make('th', { scope: 'col', className: 'c-' + by + (num ? ' num' : '') }, b); th.dataset.by = by; headRow.append(th);
    b.addEventListener('click', () => { sort = sort === by ? '-' + by : sort === '-' + by ? '' : num && by !== 'seen' ? '-' + by : by; update(); });
  }
  $('sort').addEventListener('change', () => { sort = $('sort').value; update(); });
  let timer;
  $('q').addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(() => { query = $('q').value; update('typed'); }, 120); });
  $('search').addEventListener('submit', (e) => { e.preventDefault(); clearTimeout(timer); query = $('q').value; update(); });
  $('more').addEventListener('click', () => { const from = shown; shown += 200; $('rows').append(rows(from)); $('more').hidden = shown >= matched; $('rows').children[from]?.querySelector('a').focus(); });
  $('clear').addEventListener('click', () => { for (const f of facets) chosen[f].clear(); query = $('q').value = ''; sort = ''; update(); $('q').focus(); });
  $('csv').addEventListener('click', () => {
    // No cell of a spreadsheet may begin like a formula.
    const safe = (s) => { s = String(s); if (/^[=+\-@\t\r]/.test(s)) s = "'" + s; return /[",\n]/.test(s) ? `"${s.replaceAll('"', '""')}"` : s; };
    const lines = ['address,name,status,species,release,user_agent,country,asn,network,services,height,connect_ms,up_percent_30d'];
    for (let k = 0; k < matched; k++) { const i = order[k]; lines.push([address(i), W.name[C.name[i]], W.status[C.status[i]], W.species[C.species[i]], W.release[C.release[i]], W.agent[C.agent[i]], W.country[C.country[i]][0], W.network[C.network[i]][0] || '', W.network[C.network[i]][1], W.services[C.services[i]][0], ...[C.height[i], C.latency[i], C.up[i]].map((n) => n < 0 ? '' : n)].map(safe).join(',')); }
    const a = make('a', { href: URL.createObjectURL(new Blob([lines.join('\r\n') + '\r\n'], { type: 'text/csv' })), download: 'bitdash-nodes.csv' }); a.click(); URL.revokeObjectURL(a.href);
  });
  addEventListener('popstate', (e) => { read(); update('read', e.state); });
  addEventListener('pagehide', keep);
  $('filters').open = matchMedia('(min-width: 901px)').matches;
  read(); buildFacets(); app.hidden = false; $('plain').hidden = true; update('read', history.state);
  app.dataset.fetched = Math.round(t1 - t0); app.dataset.ready = Math.round(performance.now() - t0);
})();
