// Clients that do not read, under every policy; beside each, one that reads and must lose nothing.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { connected, dataOf, subscribed } from './harness/clients.mjs';
import { ALL, Gateway, HISTORY } from './harness/gateway.mjs';
import { RawClient } from './harness/raw.mjs';
import { next, until } from './harness/wait.mjs';

const FILL = 'x'.repeat(16_000);
let gateway;
before(async () => {
  const slow = (policy, more = {}) => ({ ...ALL, 'slow.policy': policy, 'lag.bytes': '128KiB', ...more });
  gateway = await Gateway.start({
    client: { stall_timeout: '5s' },
    namespaces: nested({
      leave: slow('disconnect'),
      again: slow('skip', { ...HISTORY, history_size: 5000 }),
      lossy: slow('skip', { 'slow.silent': true }),
      latest: slow('latest'),
      tight: { ...ALL, 'lag.time': '1s' },
      big: { ...ALL, 'lag.bytes': '64MiB', 'lag.time': '10m' },
    }),
  });
});
after(() => gateway?.kill());

/** `slow.policy` as a table in a table. */
function nested(namespaces) {
  return Object.fromEntries(Object.entries(namespaces).map(([name, options]) => {
    const tables = {};
    for (const [key, value] of Object.entries(options)) {
      const [outer, inner] = key.split('.');
      if (inner) (tables[outer] ??= {})[inner] = value;
      else tables[key] = value;
    }
    return [name, tables];
  }));
}

const hits = (policy) => gateway.metric('ringway_policy_hits_total', { policy });

/** Publishes numbered messages, each waited for by the healthy one, until `enough`; how many there were. */
async function flood(healthy, channel, enough, { first = 1, key } = {}) {
  let n = first - 1;
  do {
    for (let burst = 0; burst < 4; burst++) {
      n += 1;
      await gateway.publish(channel, { n, fill: FILL }, key ? { key: key(n) } : {});
    }
    await healthy.publications.count(n);
    assert.ok(n < 8000, 'the policy was never applied');
  } while (!(await enough(n)));
  return n;
}

const isComplete = (subscription, count) => {
  assert.deepEqual(subscription.publications.items.map(({ data }) => dataOf(data).n), Array.from({ length: count }, (_, n) => n + 1));
};

/** A client that has subscribed and stopped reading, and a healthy one. */
async function pair(t, channel, more = {}) {
  const healthy = await subscribed(await connected(t, gateway.url), channel);
  const stalled = await RawClient.connected(t, gateway.url);
  await stalled.call({ subscribe: { channel, ...more } });
  stalled.ws.pause();
  return { healthy, stalled };
}

test('disconnect: who lags is closed with 3008, however late it reads that', async (t) => {
  const { healthy, stalled } = await pair(t, 'leave:a');
  const before = await hits('disconnect');
  const count = await flood(healthy, 'leave:a', async () => (await hits('disconnect')) > before);
  stalled.ws.resume();
  assert.deepEqual(await stalled.close(), { code: 3008, reason: 'slow' });
  const got = stalled.pushes('pub').map((publication) => publication.data.n);
  assert.deepEqual(got, got.map((_, at) => at + 1), 'what it got is whole and in order');
  assert.ok(got.length < count);
  await gateway.publish('leave:a', { n: count + 1 });
  await healthy.publications.count(count + 1);
  isComplete(healthy, count + 1);
});

test('disconnect: who never reads again is reset, and nothing stays behind', async (t) => {
  const { healthy, stalled } = await pair(t, 'leave:b');
  const before = await hits('disconnect');
  const count = await flood(healthy, 'leave:b', async () => (await hits('disconnect')) > before);
  // Its socket is not read, so it learns of the reset only by reading: look at the gateway's side.
  await until(async () => (await gateway.metric('ringway_blocked_connections')) === 0, 'the stalled connection to be gone');
  stalled.ws.resume();
  const { code } = await stalled.close();
  assert.ok([1006, 3008].includes(code), String(code));
  isComplete(healthy, count);
});

test('skip: who lags gets 2500 and can recover all of it', async (t) => {
  const channel = 'again:a';
  const { healthy, stalled } = await pair(t, channel, { recoverable: true });
  const before = await hits('skip');
  const count = await flood(healthy, channel, async () => (await hits('skip')) > before);
  stalled.ws.resume();
  const unsubscribe = await stalled.push('unsubscribe');
  assert.deepEqual(unsubscribe, { code: 2500, reason: 'insufficient state' });
  const got = stalled.pushes('pub');
  assert.deepEqual(got.map((publication) => publication.data.n), got.map((_, at) => at + 1));
  const { epoch } = await gateway.api('history', { channel });
  const { subscribe } = await stalled.call({ subscribe: { channel, recoverable: true, recover: true, offset: got.at(-1).offset, epoch } });
  assert.equal(subscribe.recovered, true);
  await stalled.push('pub', (publication) => publication.data.n === count);
  const rest = [...subscribe.publications, ...stalled.pushes('pub').slice(got.length)].map((publication) => publication.data.n);
  assert.deepEqual(rest, Array.from({ length: count - got.length }, (_, n) => n + got.length + 1));
  isComplete(healthy, count);
});

test('skip: the SDK subscribes again by itself and misses nothing', async (t) => {
  const channel = 'again:sdk';
  const healthy = await subscribed(await connected(t, gateway.url), channel);
  const client = await connected(t, gateway.url);
  const subscription = await subscribed(client, channel, { recoverable: true });
  const before = await hits('skip');
  const socket = client.socket();
  socket.pause();
  const count = await flood(healthy, channel, async () => (await hits('skip')) > before);
  const again = next(subscription, 'subscribing');
  const back = next(subscription, 'subscribed');
  socket.resume();
  assert.equal((await again).code, 2500);
  const context = await back;
  assert.deepEqual([context.wasRecovering, context.recovered], [true, true]);
  await subscription.publications.count(count);
  isComplete(subscription, count);
  isComplete(healthy, count);
  assert.equal(client.socket(), socket, 'the connection stayed');
});

test('skip, silent: who lags goes on at the newest and is not told', async (t) => {
  const channel = 'lossy:a';
  const { healthy, stalled } = await pair(t, channel);
  const before = await hits('skip');
  const count = await flood(healthy, channel, async () => (await hits('skip')) > before);
  stalled.ws.resume();
  // Something new reaches it, so the connection lives and the subscription too.
  let n = count;
  const arrived = stalled.push('pub', (publication) => publication.data.n > count);
  while ((await Promise.race([arrived, Promise.resolve(null)])) === null) {
    n += 1;
    await gateway.publish(channel, { n });
    await healthy.publications.count(n);
  }
  const got = stalled.pushes('pub').map((publication) => publication.data.n);
  assert.deepEqual(got, [...got].sort((a, b) => a - b));
  assert.equal(new Set(got).size, got.length);
  assert.ok(got.length < n, 'some were skipped');
  assert.deepEqual(stalled.pushes('unsubscribe'), []);
  isComplete(healthy, n);
});

test('latest: who lags gets the newest of each key', async (t) => {
  const channel = 'latest:keys';
  const { healthy, stalled } = await pair(t, channel);
  const stop = 600;
  const count = await flood(healthy, channel, async (n) => n >= stop, { key: (n) => `k${n % 3}` });
  stalled.ws.resume();
  await stalled.push('pub', (publication) => publication.data.n === count);
  const got = stalled.pushes('pub');
  const numbers = got.map((publication) => publication.data.n);
  assert.deepEqual(numbers, [...numbers].sort((a, b) => a - b), 'in order');
  assert.deepEqual(numbers.slice(-3), [count - 2, count - 1, count], 'the newest of every key');
  assert.ok(got.length < count, 'some were skipped');
  assert.ok((await hits('latest')) > 0);
  await gateway.publish(channel, { n: count + 1 });
  await stalled.push('pub', (publication) => publication.data.n === count + 1);
  await healthy.publications.count(count + 1);
  isComplete(healthy, count + 1);
});

test('latest: without keys the newest of all', async (t) => {
  const channel = 'latest:plain';
  const { healthy, stalled } = await pair(t, channel);
  const count = await flood(healthy, channel, async (n) => n >= 600);
  stalled.ws.resume();
  await stalled.push('pub', (publication) => publication.data.n === count);
  const numbers = stalled.pushes('pub').map((publication) => publication.data.n);
  assert.deepEqual(numbers, [...numbers].sort((a, b) => a - b));
  assert.ok(numbers.length < count);
  isComplete(healthy, count);
});

test('stall: who takes no byte for too long is closed, though it lags in no channel', async (t) => {
  const channel = 'big:a';
  const { healthy, stalled } = await pair(t, channel);
  const closed = () => gateway.metric('ringway_connections_closed_total', { code: '3008' });
  const before = await closed();
  const blocked = () => gateway.metric('ringway_blocked_connections');
  const count = await flood(healthy, channel, async () => (await blocked()) > 0);
  await until(async () => (await closed()) > before, 'the stalled client to be closed');
  isComplete(healthy, count);
  stalled.ws.resume();
  await stalled.close();
});

test('commands of a client that reads no replies end with 3008', async (t) => {
  const client = await RawClient.connected(t, gateway.url);
  await gateway.publish('again:replies', { fill: FILL });
  client.ws.pause();
  const ask = JSON.stringify({ history: { channel: 'again:replies', limit: 10 } });
  let id = client.id;
  // Replies of 16 kB each, asked for faster than the sockets' buffers grow.
  const closed = () => gateway.metric('ringway_connections_closed_total', { code: '3008' });
  const before = await closed();
  await until(async () => {
    for (let n = 0; n < 20 && client.ws.readyState === 1; n++) client.ws.send(ask.replace('{', `{"id":${++id},`));
    return (await closed()) > before;
  }, 'the client that reads nothing to be closed');
  client.ws.resume();
  assert.ok([3008, 1006].includes((await client.close()).code));
});
