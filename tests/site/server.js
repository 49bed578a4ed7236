'use strict';
// Hands out a directory on loopback, as a web server does.
const fs = require('fs');
const http = require('http');
const path = require('path');

const types = { html: 'text/html; charset=utf-8', css: 'text/css', js: 'text/javascript', svg: 'image/svg+xml', atom: 'application/atom+xml' };

exports.serve = (dir, use) => {
  const server = http.createServer((request, answer) => {
    let name = decodeURIComponent(new URL(request.url, 'http://x').pathname);
    if (name.endsWith('/')) name += 'index.html';
    fs.readFile(path.join(dir, path.normalize(name)), (error, bytes) => {
      answer.writeHead(error ? 404 : 200, { 'content-type': types[name.split('.').pop()] || 'application/octet-stream' });
      answer.end(error ? 'not found' : bytes);
    });
  });
  server.listen(0, '127.0.0.1', async () => {
    await use(`http://127.0.0.1:${server.address().port}/`);
    server.close();
  });
};

exports.launch = () => {
  const { chromium } = require('playwright-core');
  const args = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking', '--disable-component-update', '--no-first-run'];
  return chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args });
};
