'use strict';
// Makes the world of the website's map, src/site/assets/land.path, from Natural Earth's countries
// (1:110m, public domain). In a new directory:
//   npm install world-atlas@2.0.2 topojson-client@3 d3-geo@3
//   node .../scripts/land-path.js >.../src/site/assets/land.path
const here = require('module').createRequire(`${process.cwd()}/`);
const { merge } = here('topojson-client');
const world = here('world-atlas/countries-110m.json');

const ANTARCTICA = '010';

// Left out: points beside the one before, those on a straight line, and islands that vanish then.
const isNear = (a, b) => Math.abs(a[0] - b[0]) + Math.abs(a[1] - b[1]) < 2;
const isStraight = (a, b, c) => (b[0] - a[0]) * (c[1] - b[1]) === (b[1] - a[1]) * (c[0] - b[0]);
const path = (ring) => {
  const kept = [];
  for (const point of ring) {
    while (kept.length > 1 && isStraight(kept.at(-2), kept.at(-1), point)) kept.pop();
    if (kept.length === 0 || !isNear(kept.at(-1), point)) kept.push(point);
  }
  if (kept.length < 3) return '';
  const steps = kept.slice(1).map(([x, y], i) => `${x - kept[i][0]} ${y - kept[i][1]}`);
  return `M${kept[0].join(' ')}l${steps.join(' ').replaceAll(' -', '-')}z`;
};

import(here.resolve('d3-geo')).then(({ geoNaturalEarth1, geoPath }) => {
  // The Natural Earth projection, 720 units wide; its middle is 11 degrees east, so that no land is
  // cut but Antarctica, which is left out.
  const projection = geoNaturalEarth1().rotate([-11, 0]).fitWidth(720, { type: 'Sphere' });
  const rings = [];
  const point = (x, y) => rings.at(-1).push([Math.round(x), Math.round(y)]);
  const begin = (x, y) => { rings.push([]); point(x, y); };
  const countries = world.objects.countries.geometries.filter((country) => country.id !== ANTARCTICA);
  geoPath(projection, { moveTo: begin, lineTo: point, closePath() {} })(merge(world, countries));
  console.log(rings.map(path).join(''));
});
