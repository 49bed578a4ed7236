'use strict';

// A bcoin full node (main network, everything in memory) that only listens:
//
//     node node.js LISTEN [KNOWN...]        each HOST:PORT, all of 127.0.0.0/8
//
// It answers whoever connects as bcoin answers, and hands out the KNOWN addresses. Prints one line,
// "listening HOST:PORT", and ends when its standard input does, so that no test leaves it behind.

const net = require('net');
const dns = require('dns');
const dgram = require('dgram');

// No packet leaves this machine: nothing in this process may connect, ask a name server or send a datagram.
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
// To listen on an address counts as a look-up too.
dns.lookup = (host, ...rest) => {
  if (!net.isIP(host))
    throw new Error(`this test node must not look up ${host}`);
  return lookup(host, ...rest);
};

// It is installed without building anything: the cryptography is the one in JavaScript, and the native
// database, which a node in memory never opens, is not there.
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
    throw new Error(`${text}: an address of 127.0.0.0/8 with a port is wanted`);
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
  // Neither a web server nor a single outbound connection, and nobody is asked who we are.
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
