'use strict';

// A bcoin full node (main network, everything in memory) that only listens:
//
//     node node.js LISTEN [KNOWN...]        each HOST:PORT, all of 127.0.0.0/8
//
// It answers every peer as bcoin does, and advertises the KNOWN addresses. It prints one line,
// "listening HOST:PORT", and exits when its stdin closes, so that it never outlives its test.

const net = require('net');
const dns = require('dns');
const dgram = require('dgram');

// No packet leaves this machine: this process may not connect, query DNS or send a datagram.
function forbid(object, names) {
  for (const name of names) {
    object[name] = () => {
      throw new Error(`this test node must not call ${name}`);
    };
  }
}
const lookup = dns.lookup;
forbid(net.Socket.prototype, ['connect']);
forbid(net, ['connect', 'createConnection']);
forbid(dns, Object.keys(dns).filter(name => /^(lookup|resolve|reverse)/.test(name)));
forbid(dns.promises, Object.keys(dns.promises).filter(name => /^(lookup|resolve|reverse)/.test(name)));
forbid(dgram, ['createSocket']);
// Listening calls lookup, too.
dns.lookup = (host, ...rest) => {
  if (!net.isIP(host))
    throw new Error(`this test node must not look up ${host}`);
  return lookup(host, ...rest);
};

// No native module is installed: the cryptography is in JavaScript, and a node in memory never
// opens the native database.
process.env.NODE_BACKEND = 'js';
const Module = require('module');
const load = Module._load;
Module._load = (name, ...rest) => (name === 'leveldown' ? class {} : load(name, ...rest));

const FullNode = require('bcoin/lib/node/fullnode');
const NetAddress = require('bcoin/lib/net/netaddress');
const common = require('bcoin/lib/net/common');

function parse(text) {
  const match = /^(127\.\d+\.\d+\.\d+):(\d+)$/.exec(text);
  if (!match)
    throw new Error(`${text}: expected 127.x.y.z:PORT`);
  return { host: match[1], port: Number(match[2]) };
}

async function main(args) {
  const [own, ...known] = args.map(parse);
  if (!own)
    throw new Error('usage: node.js LISTEN [KNOWN...]');

  const node = new FullNode({
    network: 'main',
    memory: true,
    config: false,
    argv: false,
    env: false,
    logConsole: false,
    logFile: false,
    workers: false,
    listen: true,
    host: own.host,
    port: own.port,
    publicHost: own.host,
    publicPort: own.port,
    upnp: false,
    seeds: [],
    nodes: []
  });
  // No web server, no outbound connection, and no discovery of our public address.
  node.http.open = node.http.close = async () => {};
  const pool = node.pool;
  pool.discoverGateway = pool.discoverExternal = pool.discoverSeeds = async () => false;
  pool.fillOutbound = pool.startTimer = pool.stopTimer = () => {};
  pool.hosts.injectSeeds = () => {};
  pool.hosts.discoverNodes = async () => {};

  await node.open();
  const now = node.network.now();
  for (const { host, port } of known) {
    const address = NetAddress.fromHost(host, port, 'main');
    address.services = common.services.NETWORK | common.services.WITNESS;
    address.time = now - 600;
    if (!pool.hosts.add(address))
      throw new Error(`${host}:${port} was not added`);
  }
  await node.connect();
  console.log(`listening ${own.host}:${own.port}`);
}

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
process.on('unhandledRejection', (error) => {
  console.error(error);
  process.exit(1);
});
main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
