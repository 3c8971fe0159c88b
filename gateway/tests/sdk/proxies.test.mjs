// Clients behind proxies, on both reactors: the PROXY protocol in front of the request, and X-Forwarded-For in it.
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before, test } from 'node:test';
import WebSocket from 'ws';
import { Centrifuge } from 'centrifuge';
import { Gateway } from './harness/gateway.mjs';
import { RawClient } from './harness/raw.mjs';
import { next, until, within } from './harness/wait.mjs';

const V1 = Buffer.from('PROXY TCP4 203.0.113.7 10.0.0.1 56324 8000\r\n');
const V2 = Buffer.from('0d0a0d0a000d0a515549540a21110013cb0071070a000001dc041f4003000401020304', 'hex');
const log = { level: 'debug', format: 'json' };

/** A socket that says something first, in one piece or two. */
const behind = (header, cut = header.length) => (options, created) => {
  // Its path is the request's, not a UNIX socket's.
  const socket = connect({ ...options, path: undefined });
  socket.setNoDelay(true);
  socket.write(header.subarray(0, cut));
  if (cut === header.length) return socket;
  // The request waits until it has the socket.
  setTimeout(() => {
    socket.write(header.subarray(cut));
    created(null, socket);
  }, 50);
  return undefined;
};

/** Waits until the gateway has logged a client's address. */
const logged = (gateway, address) => until(() => gateway.output.includes(`"address":"${address}"`), `a client from ${address} in the log`);

for (const reactor of ['uring', 'epoll']) {
  let required;
  let trusting;
  before(async () => {
    const args = ['--reactor', reactor];
    required = await Gateway.start({ rest: { log, proxy_protocol: { mode: 'require', networks: ['127.0.0.1'] } }, args });
    trusting = await Gateway.start({ client: { trusted_proxies: ['127.0.0.0/8'] }, rest: { log }, args });
  });
  after(async () => {
    await required?.kill();
    await trusting?.kill();
  });

  test(`${reactor}: a client behind a PROXY header connects, by SDK too`, async (t) => {
    for (const createConnection of [behind(V1), behind(V2), behind(V1, 9), behind(V2, 20)]) {
      await RawClient.connected(t, required.url, {}, { createConnection });
    }
    await logged(required, '203.0.113.7');
    class Proxied extends WebSocket {
      constructor(address, protocols) {
        super(address, protocols, { createConnection: behind(V2) });
      }
    }
    const client = new Centrifuge(required.url, { websocket: Proxied });
    t.after(() => client.disconnect());
    const ready = next(client, 'connected');
    client.connect();
    await ready;
  });

  test(`${reactor}: without a header, or with a bad one, the connection is reset, and others go on`, async (t) => {
    const healthy = await RawClient.connected(t, required.url, {}, { createConnection: behind(V1) });
    const refusals = await required.metric('ringway_proxies_refused_total');
    const bad = [Buffer.from('GET /connection/websocket HTTP/1.1\r\n\r\n'), Buffer.from('PROXY TCP9 \r\n'), Buffer.concat([V2.subarray(0, 14), Buffer.from([0xff, 0xff])])];
    for (const head of bad) {
      const socket = connect(required.port, '127.0.0.1');
      t.after(() => socket.destroy());
      let heard = 0;
      socket.on('data', (bytes) => { heard += bytes.length; }).on('error', () => {});
      socket.write(head);
      await within(new Promise((resolve) => { socket.on('close', resolve); }), 'the reset');
      assert.equal(heard, 0);
    }
    assert.equal(await required.metric('ringway_proxies_refused_total'), refusals + bad.length);
    assert.deepEqual((await healthy.call({ ping: {} })).error, undefined);
  });

  test(`${reactor}: X-Forwarded-For of a trusted proxy names the client, and a header is refused where none is allowed`, async (t) => {
    await RawClient.connected(t, trusting.url, {}, { headers: { 'X-Forwarded-For': '198.51.100.9, 203.0.113.8, 127.0.0.9' } });
    await logged(trusting, '203.0.113.8');
    assert.doesNotMatch(trusting.output, /198\.51\.100\.9/);
    await assert.rejects(RawClient.open(t, trusting.url, { createConnection: behind(V1) }), /in vain|400|Unexpected/);
  });
}
