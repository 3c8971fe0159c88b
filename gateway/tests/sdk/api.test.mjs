// What a backend does to clients through the server API.
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { after, before, test } from 'node:test';
import { connected, dataOf, ENCODINGS, subscribed } from './harness/clients.mjs';
import { ALL, Gateway, HISTORY } from './harness/gateway.mjs';
import { connectionToken } from './harness/token.mjs';
import { next } from './harness/wait.mjs';

let gateway;
before(async () => {
  gateway = await Gateway.start({ namespaces: { '': ALL, kept: { ...ALL, ...HISTORY } } });
});
after(() => gateway?.kill());

for (const encoding of ENCODINGS) {
  test(`${encoding}: an unsubscribe ends the subscription, of the user alone`, async (t) => {
    const channel = `room-${encoding}`;
    const user = `kicked-${encoding}`;
    const client = await connected(t, gateway.url, { encoding, token: connectionToken(user) });
    const [kicked, kept] = [await subscribed(client, channel), await subscribed(client, `other-${encoding}`)];
    const bystander = await subscribed(await connected(t, gateway.url, { encoding, token: connectionToken('bystander') }), channel);
    const gone = next(kicked, 'unsubscribed');
    await gateway.api('unsubscribe', { user, channel });
    assert.deepEqual(await gone.then(({ code, reason }) => [code, reason]), [2000, 'server unsubscribe']);
    await gateway.publish(channel, { n: 1 });
    await gateway.publish(kept.channel, { n: 2 });
    await bystander.publications.count(1);
    await kept.publications.count(1);
    assert.equal(kicked.publications.items.length, 0);
    assert.equal(client.state, 'connected');
  });

  test(`${encoding}: a disconnect is for good`, async (t) => {
    const client = await connected(t, gateway.url, { encoding, token: connectionToken(`gone-${encoding}`) });
    const gone = next(client, 'disconnected');
    await gateway.api('disconnect', { user: `gone-${encoding}` });
    assert.deepEqual(await gone.then(({ code, reason }) => [code, reason]), [3503, 'force disconnect']);
  });
}

test('an unsubscribe without a channel ends all of the user\'s', async (t) => {
  const client = await connected(t, gateway.url, { token: connectionToken('all') });
  const subscriptions = [await subscribed(client, 'a'), await subscribed(client, 'kept:b')];
  const gone = subscriptions.map((subscription) => next(subscription, 'unsubscribed'));
  await gateway.api('unsubscribe', { user: 'all' });
  for (const context of await Promise.all(gone)) assert.equal(context.code, 2000);
});

test('codes of one\'s own steer the client', async (t) => {
  for (const [code, returns] of [[4000, true], [4499, true], [3100, true], [4500, false], [4999, false], [3999, false]]) {
    const user = `coded-${code}`;
    const client = await connected(t, gateway.url, { token: connectionToken(user) });
    const told = next(client, returns ? 'connecting' : 'disconnected');
    const back = returns && next(client, 'connected');
    await gateway.api('disconnect', { user, disconnect: { code, reason: 'because' } });
    assert.deepEqual(await told.then((context) => [context.code, context.reason]), [code, 'because']);
    if (returns) await back;
  }
  for (const disconnect of [{ code: 1000, reason: 'x' }, { code: 5000, reason: 'x' }, { code: 4000, reason: '{"a":1}' }, { code: 4000, reason: 'x'.repeat(33) }]) {
    await assert.rejects(gateway.api('disconnect', { user: 'coded', disconnect }), { code: 107 });
  }
});

test('one client of a user is meant, or all but some', async (t) => {
  const token = connectionToken('many');
  const clients = await Promise.all(Array.from({ length: 4 }, () => connected(t, gateway.url, { token })));
  const [first, second, ...others] = clients;
  const gone = next(first, 'disconnected');
  await gateway.api('disconnect', { user: 'many', client: first.context.client });
  await gone;
  assert.deepEqual([second, ...others].map((client) => client.state), ['connected', 'connected', 'connected']);
  const rest = others.map((client) => next(client, 'disconnected'));
  await gateway.api('disconnect', { user: 'many', whitelist: [second.context.client] });
  await Promise.all(rest);
  assert.equal(second.state, 'connected');
});

test('history, presence, channels and counts', async (t) => {
  const client = await connected(t, gateway.url, { token: connectionToken('ann') });
  await subscribed(client, 'kept:listed');
  const { offset, epoch } = await gateway.publish('kept:listed', { n: 1 }, { tags: { a: 'b' } });
  const history = await gateway.api('history', { channel: 'kept:listed', limit: -1 });
  assert.deepEqual(history.publications, [{ data: { n: 1 }, offset, tags: { a: 'b' } }]);
  assert.deepEqual([history.offset, history.epoch], [offset, epoch]);
  assert.deepEqual((await gateway.api('history', { channel: 'kept:listed' })).publications, []);
  await assert.rejects(gateway.api('history', { channel: 'room' }), { code: 108 });
  await assert.rejects(gateway.api('presence', { channel: 'room' }), { code: 108 });
  const { channels } = await gateway.api('channels', { pattern: 'kept:*' });
  assert.equal(channels['kept:listed'].num_clients, 1);
  const info = await gateway.api('info');
  assert.equal(info.nodes.length, 1);
  assert.ok(info.nodes[0].num_clients >= 1);
});

test('a broadcast answers for each channel, a batch for each command', async (t) => {
  const client = await connected(t, gateway.url);
  const [a, b] = [await subscribed(client, 'kept:ba'), await subscribed(client, 'kept:bb')];
  const { responses } = await gateway.api('broadcast', { channels: ['kept:ba', 'nowhere:x', 'kept:bb'], data: { n: 1 } });
  assert.deepEqual(responses.map((response) => response.error?.code ?? 'taken'), ['taken', 102, 'taken']);
  await a.publications.count(1);
  await b.publications.count(1);
  const response = await fetch(`http://127.0.0.1:${gateway.internal}/api/batch`, {
    method: 'POST',
    headers: { Authorization: `apikey ${gateway.key}` },
    body: JSON.stringify({ commands: [{ publish: { channel: 'kept:ba', data: 2 } }, { presence: { channel: 'kept:ba' } }] }),
  });
  const { replies } = await response.json();
  assert.ok(replies[0].publish.offset);
  assert.equal(replies[1].error.code, 108);
  assert.equal(dataOf((await a.publications.count(2))[1].data), 2);
});

test('a publication with a key that was seen is not published again', async (t) => {
  const client = await connected(t, gateway.url);
  const subscription = await subscribed(client, 'kept:once');
  const once = { idempotency_key: 'the same' };
  const first = await gateway.publish('kept:once', { n: 1 }, once);
  assert.deepEqual(await gateway.publish('kept:once', { n: 1 }, once), first);
  await gateway.publish('kept:once', { n: 2 });
  assert.deepEqual((await subscription.publications.count(2)).map(({ data }) => data.n), [1, 2]);
});

test('skip_history is heard and not kept', async (t) => {
  const client = await connected(t, gateway.url);
  const subscription = await subscribed(client, 'kept:skipped');
  await gateway.publish('kept:skipped', { n: 1 });
  await gateway.publish('kept:skipped', { n: 2 }, { skip_history: true });
  const publications = await subscription.publications.count(2);
  assert.deepEqual(publications.map(({ data }) => data.n).sort(), [1, 2]);
  assert.equal(publications.find(({ data }) => data.n === 2).offset, undefined);
  const history = await gateway.api('history', { channel: 'kept:skipped', limit: -1 });
  assert.deepEqual(history.publications.map(({ data }) => data.n), [1]);
});

test('who has no key gets 401, who sends no JSON 400', async () => {
  const call = (headers, body) => fetch(`http://127.0.0.1:${gateway.internal}/api/publish`, { method: 'POST', headers, body }).then((response) => response.status);
  assert.equal(await call({}, '{}'), 401);
  assert.equal(await call({ 'X-API-Key': 'wrong' }, '{}'), 401);
  assert.equal(await call({ 'X-API-Key': gateway.key }, '{"channel":'), 400);
  assert.equal(await call({ 'X-API-Key': gateway.key }, '{}'), 200);
});

test('pages of elsewhere ask nothing, by a form or as a host that was made to resolve here', async () => {
  const asked = (path, headers, method = 'GET') => new Promise((resolve, reject) => {
    const sent = request({ port: gateway.internal, host: '127.0.0.1', path, method, headers }, (response) => {
      response.resume().on('end', () => resolve(response.statusCode));
    });
    sent.on('error', reject).end(method === 'POST' ? '{}' : undefined);
  });
  const host = `127.0.0.1:${gateway.internal}`;
  const keyed = `/api/publish?api_key=${encodeURIComponent(gateway.key)}`;
  assert.equal(await asked(keyed, { host, 'content-type': 'text/plain', origin: 'https://evil.test' }, 'POST'), 403);
  assert.equal(await asked(keyed, { host, 'content-type': 'text/plain' }, 'POST'), 200);
  assert.equal(await asked('/metrics', { host: `evil.test:${gateway.internal}` }), 403);
  assert.equal(await asked('/metrics', { host: `localhost:${gateway.internal}` }), 200);
});

test('health and metrics are there, the demo page is not', async () => {
  for (const [path, status] of [['/livez', 200], ['/readyz', 200], ['/metrics', 200], ['/', 404], ['/demo/demo.js', 404]]) {
    assert.equal((await gateway.get(path)).status, status, path);
  }
  const text = await (await gateway.get('/metrics')).text();
  const busy = [...text.matchAll(/^ringway_shard_busy_seconds_total\{[^}]*\} (\S+)$/gm)].map(([, seconds]) => Number(seconds));
  assert.equal(busy.length, 3);
  assert.ok(busy.every((seconds) => seconds > 0), `every shard has worked: ${busy}`);
  assert.ok(text.includes('# TYPE ringway_'));
});
