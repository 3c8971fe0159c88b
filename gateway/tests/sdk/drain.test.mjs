// A node that stops: clients are sent away evenly, come back elsewhere, and are told the truth about what they missed.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { test } from 'node:test';
import { connected, dataOf, ENCODINGS, subscribed } from './harness/clients.mjs';
import { ALL, Gateway, HISTORY } from './harness/gateway.mjs';
import { RawClient } from './harness/raw.mjs';
import { next, until, within } from './harness/wait.mjs';

const DRAIN = 2000;
const CONFIG = {
  namespaces: { kept: { ...ALL, ...HISTORY }, '': ALL },
  rest: { shutdown: { delay: '300ms', drain: `${DRAIN}ms` } },
};

/** A load balancer: new connections go to `target.port`. */
async function balancer(t, target) {
  const server = createServer((client) => {
    const upstream = connect(target.port, '127.0.0.1');
    client.pipe(upstream).pipe(client);
    for (const [one, other] of [[client, upstream], [upstream, client]]) {
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
    }
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return `ws://127.0.0.1:${server.address().port}/connection/websocket`;
}

test('clients are closed with 3001 over the window and move to another node', async (t) => {
  const [old, young] = await Promise.all([Gateway.start(CONFIG), Gateway.start(CONFIG)]);
  t.after(() => Promise.all([old.kill(), young.kill()]));
  const target = { port: old.port };
  const url = await balancer(t, target);
  const clients = await Promise.all(Array.from({ length: 60 }, (_, n) => connected(t, url, { encoding: ENCODINGS[n % 2] })));
  const subscriptions = await Promise.all(clients.map((client) => subscribed(client, 'kept:room', { recoverable: true })));
  await old.publish('kept:room', { n: 1 });
  await Promise.all(subscriptions.map(({ publications }) => publications.count(1)));

  const told = clients.map((client) => next(client, 'connecting').then(({ code, reason }) => ({ at: Date.now(), code, reason })));
  const back = subscriptions.map((subscription) => next(subscription, 'subscribed'));
  const begun = Date.now();
  old.process.kill('SIGTERM');
  await until(async () => (await old.get('/readyz').catch(() => ({ status: 0 }))).status !== 200, 'the old node to say that it is not ready');
  target.port = young.port;
  // A client that comes to the old node meanwhile is still served.
  assert.equal(clients.every((client) => client.state === 'connected'), true, 'nobody is closed before the delay is over');

  const ends = (await Promise.all(told)).sort((a, b) => a.at - b.at);
  for (const { code, reason } of ends) assert.deepEqual([code, reason], [3001, 'shutdown']);
  assert.ok(ends[0].at - begun >= 250, 'the first is closed after the delay');
  const span = ends.at(-1).at - ends[0].at;
  assert.ok(span > DRAIN / 2 && span < DRAIN * 3, `closed within ${span} ms of a window of ${DRAIN}`);
  const halves = ends.filter((end) => end.at - ends[0].at < span / 2).length;
  assert.ok(halves > 10 && halves < 50, `evenly: ${halves} of 60 in the first half`);

  for (const context of await Promise.all(back)) {
    // The young node has lived another life: what was missed cannot be told, so nothing is claimed.
    assert.deepEqual([context.wasRecovering, context.recovered], [true, false]);
  }
  await young.publish('kept:room', { n: 2 });
  for (const { publications } of subscriptions) {
    assert.deepEqual((await publications.count(2)).map(({ data }) => dataOf(data).n), [1, 2]);
  }
  assert.deepEqual(await within(old.exited, 'the old node to end'), { code: 0, signal: null });
});

test('a restart on the same ports takes the clients back', async (t) => {
  const first = await Gateway.start(CONFIG);
  t.after(() => first.kill());
  const client = await connected(t, first.url);
  const subscription = await subscribed(client, 'kept:restarted', { recoverable: true });
  await first.publish('kept:restarted', { n: 1 });
  await subscription.publications.count(1);
  const back = next(subscription, 'subscribed');
  assert.deepEqual(await first.stop(), { code: 0, signal: null });
  const second = await Gateway.start({ ...CONFIG, ports: [first.port, first.internal] });
  t.after(() => second.kill());
  const context = await back;
  assert.deepEqual([context.wasRecovering, context.recovered], [true, false]);
  await second.publish('kept:restarted', { n: 2 });
  await subscription.publications.count(2);
});

test('new connections are refused while it drains', async (t) => {
  const gateway = await Gateway.start(CONFIG);
  t.after(() => gateway.kill());
  const witness = await RawClient.connected(t, gateway.url);
  gateway.process.kill('SIGTERM');
  await until(async () => {
    const probe = connect(gateway.port, '127.0.0.1');
    probe.on('error', () => {});
    const refused = await Promise.race([once(probe, 'error').then(() => true, () => true), once(probe, 'connect').then(() => false, () => true)]);
    probe.destroy();
    return refused;
  }, 'connects to be refused');
  assert.equal((await witness.close()).code, 3001);
  assert.equal((await within(gateway.exited, 'the end')).code, 0);
});

test('a second SIGTERM cuts the drain short and still ends with 0', async (t) => {
  const gateway = await Gateway.start({ ...CONFIG, rest: { shutdown: { delay: '20s', drain: '60s' } } });
  t.after(() => gateway.kill());
  const clients = await Promise.all(Array.from({ length: 5 }, () => RawClient.connected(t, gateway.url)));
  gateway.process.kill('SIGTERM');
  await until(async () => (await gateway.get('/readyz')).status === 503, 'not ready');
  assert.equal((await gateway.get('/livez')).status, 200);
  gateway.process.kill('SIGTERM');
  assert.equal((await within(gateway.exited, 'the end')).code, 0);
  await Promise.all(clients.map((client) => client.close()));
});

test('clients that never answer the close do not hold the node', async (t) => {
  const gateway = await Gateway.start({ ...CONFIG, rest: { shutdown: { delay: '0', drain: '200ms' } } });
  t.after(() => gateway.kill());
  const client = await RawClient.connected(t, gateway.url);
  client.ws.pause();
  gateway.process.kill('SIGTERM');
  assert.equal((await within(gateway.exited, 'the end')).code, 0);
});
