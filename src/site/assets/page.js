'use strict';
// Shared by all scripts: a file that was compressed by us, whatever the web server adds.
const unpacked = async (url) => {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(answer.status);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  // A server that announces gzip had the browser unpack it already.
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return new Response(bytes);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip')));
};
const make = (tag, props, ...kids) => {
  const element = Object.assign(document.createElement(tag), props);
  element.append(...kids);
  return element;
};
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const date = (secs) => { const day = new Date(secs * 1000); return `${day.getUTCDate()} ${MONTHS[day.getUTCMonth()]} ${day.getUTCFullYear()}`; };
// The day or week of a strip below the pointer.
addEventListener('pointermove', (event) => {
  const figure = event.target.closest?.('figure[data-last]'), strip = figure?.querySelector('.strip');
  if (!strip) return;
  const { left, width } = strip.getBoundingClientRect(), { last, step, number } = figure.dataset;
  const index = Math.min(number - 1, Math.max(0, Math.floor((event.clientX - left) / width * number)));
  figure.title = (step > 86400 ? 'week of ' : '') + date(last - (number - 1 - index) * step);
});
const grouped = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, '\u202f');
(() => {
  const age = document.getElementById('age');
  if (!age) return;
  const hours = (Date.now() / 1000 - Number(age.dataset.at)) / 3600;
  if (hours > 3) age.textContent = `These figures are ${hours < 48 ? Math.round(hours) + ' hours' : Math.round(hours / 24) + ' days'} old. `;
})();
