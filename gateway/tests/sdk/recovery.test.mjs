// Recovery: what was missed arrives once and in order; and where it cannot, that is said.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { connected, dataOf, ENCODINGS, subscribed, watched } from './harness/clients.mjs';
import { ALL, Gateway, HISTORY } from './harness/gateway.mjs';
import { RawClient } from './harness/raw.mjs';
import { connectionToken } from './harness/token.mjs';
import { next } from './harness/wait.mjs';

let gateway;
before(async () => {
  gateway = await Gateway.start({
    namespaces: {
      kept: { ...ALL, ...HISTORY, history_size: 5000 },
      short: { ...ALL, ...HISTORY, history_size: 10 },
      brief: { ...ALL, ...HISTORY, history_ttl: '1s' },
      unkept: { ...ALL },
      forced: { ...ALL, history_size: 100, history_ttl: '10m', force_recovery: true },
    },
  });
});
after(() => gateway?.kill());

/** Loses the connection without a word and waits until the SDK has seen it. */
async function cut(client) {
  const away = next(client, 'connecting');
  client.socket().terminate();
  await away;
}

for (const encoding of ENCODINGS) {
  test(`${encoding}: nothing is lost, doubled or reordered through many disconnects`, async (t) => {
    const channel = `kept:cycles-${encoding}`;
    const user = `cycler-${encoding}`;
    const client = await connected(t, gateway.url, { encoding, token: connectionToken(user) });
    const subscription = await subscribed(client, channel, { recoverable: true });
    const cycles = 40;
    let published = 0;
    let stop = false;
    const publishing = (async () => {
      while (!stop) {
        published += 1;
        await gateway.publish(channel, { n: published });
      }
    })();
    for (let cycle = 0; cycle < cycles; cycle++) {
      await subscription.publications.count(published + 3);
      const back = next(subscription, 'subscribed');
      // By turns: a broken connection, and the server's own "go and come back".
      if (cycle % 2) client.socket().terminate();
      else await gateway.api('disconnect', { user, disconnect: { code: 4000, reason: 'come back' } });
      const context = await back;
      assert.deepEqual([context.wasRecovering, context.recovered], [true, true], `cycle ${cycle}`);
    }
    stop = true;
    await publishing;
    const got = (await subscription.publications.count(published)).map((publication) => dataOf(publication.data).n);
    assert.deepEqual(got, Array.from({ length: published }, (_, n) => n + 1));
    const { offset } = await subscription.history({ limit: 0 });
    assert.equal(subscription.publications.items.at(-1).offset, offset);
  });

  test(`${encoding}: the flags tell whether something was missed`, async (t) => {
    const channel = `kept:flags-${encoding}`;
    const client = await connected(t, gateway.url, { encoding });
    const subscription = await subscribed(client, channel, { recoverable: true });
    assert.deepEqual([subscription.context.wasRecovering, subscription.context.recovered, subscription.context.recoverable, subscription.context.positioned], [false, false, true, true]);
    let back = next(subscription, 'subscribed');
    await cut(client);
    let context = await back;
    assert.deepEqual([context.wasRecovering, context.recovered, context.hasRecoveredPublications], [true, true, false]);
    back = next(subscription, 'subscribed');
    await cut(client);
    for (const n of [1, 2, 3]) await gateway.publish(channel, { n });
    context = await back;
    assert.deepEqual([context.wasRecovering, context.recovered], [true, true]);
    await subscription.publications.count(3);
    assert.deepEqual(subscription.publications.items.map(({ data }) => dataOf(data).n), [1, 2, 3]);
  });

  test(`${encoding}: a history that does not reach back says so`, async (t) => {
    const channel = `short:gap-${encoding}`;
    const client = await connected(t, gateway.url, { encoding, minReconnectDelay: 1000 });
    const subscription = await subscribed(client, channel, { recoverable: true });
    await gateway.publish(channel, { n: 0 });
    await subscription.publications.count(1);
    client.disconnect();
    for (let n = 1; n <= 30; n++) await gateway.publish(channel, { n });
    const back = next(subscription, 'subscribed');
    client.connect();
    const context = await back;
    assert.deepEqual([context.wasRecovering, context.recovered, context.hasRecoveredPublications], [true, false, false]);
    await gateway.publish(channel, { n: 31 });
    await subscription.publications.count(2);
    assert.deepEqual(subscription.publications.items.map(({ data }) => dataOf(data).n), [0, 31]);
    assert.equal(context.streamPosition.offset, subscription.publications.items[1].offset - 1);
  });

  test(`${encoding}: a gap as long as the history is closed`, async (t) => {
    const channel = `short:edge-${encoding}`;
    const client = await connected(t, gateway.url, { encoding });
    const subscription = await subscribed(client, channel, { recoverable: true });
    await gateway.publish(channel, { n: 0 });
    await subscription.publications.count(1);
    client.disconnect();
    for (let n = 1; n <= 10; n++) await gateway.publish(channel, { n });
    const back = next(subscription, 'subscribed');
    client.connect();
    const context = await back;
    assert.deepEqual([context.recovered, context.hasRecoveredPublications], [true, true]);
    await subscription.publications.count(11);
    assert.deepEqual(subscription.publications.items.map(({ data }) => dataOf(data).n), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  });
}

test('a position in another epoch is not recovered, and can be refused with 112', async (t) => {
  const channel = 'kept:epochs';
  await gateway.publish(channel, { n: 1 });
  const client = await connected(t, gateway.url);
  const subscription = await subscribed(client, channel, { recoverable: true, since: { offset: 1, epoch: 'of another life' } });
  const { wasRecovering, recovered, streamPosition } = subscription.context;
  assert.deepEqual([wasRecovering, recovered], [true, false]);
  assert.notEqual(streamPosition.epoch, 'of another life');
  const raw = await RawClient.connected(t, gateway.url);
  const reply = await raw.call({ subscribe: { channel, recover: true, recoverable: true, offset: 1, epoch: 'x', flag: 2 } });
  assert.equal(reply.error.code, 112);
  // It is not half subscribed.
  assert.ok((await raw.call({ subscribe: { channel } })).subscribe);
});

test('an empty epoch counts as the present one', async (t) => {
  const channel = 'kept:no-epoch';
  const { offset } = await gateway.publish(channel, { n: 1 });
  await gateway.publish(channel, { n: 2 });
  const raw = await RawClient.connected(t, gateway.url);
  const { subscribe } = await raw.call({ subscribe: { channel, recover: true, recoverable: true, offset } });
  assert.equal(subscribe.recovered, true);
  assert.deepEqual(subscribe.publications.map((publication) => publication.data), [{ n: 2 }]);
  assert.equal(subscribe.offset, offset, 'the client\'s own position');
});

test('a position from the future is not recovered', async (t) => {
  const channel = 'kept:future';
  const { offset, epoch } = await gateway.publish(channel, { n: 1 });
  const raw = await RawClient.connected(t, gateway.url);
  const { subscribe } = await raw.call({ subscribe: { channel, recover: true, recoverable: true, offset: offset + 100, epoch } });
  assert.equal(subscribe.was_recovering, true);
  assert.equal(subscribe.recovered, undefined);
  assert.equal(subscribe.offset, offset);
});

test('publications that were too old are missed honestly', async (t) => {
  const channel = 'brief:a';
  const raw = await RawClient.connected(t, gateway.url);
  const first = await gateway.publish(channel, { n: 1 });
  await gateway.publish(channel, { n: 2 });
  // The history's own time to live is the event here.
  await new Promise((resolve) => setTimeout(resolve, 2500));
  const { subscribe } = await raw.call({ subscribe: { channel, recover: true, recoverable: true, ...first } });
  assert.equal(subscribe.was_recovering, true);
  assert.equal(subscribe.recovered, undefined);
  assert.equal(subscribe.publications, undefined);
});

test('removed history is missed honestly, the position goes on', async (t) => {
  const channel = 'kept:removed';
  const first = await gateway.publish(channel, { n: 1 });
  const second = await gateway.publish(channel, { n: 2 });
  await gateway.api('history_remove', { channel });
  const raw = await RawClient.connected(t, gateway.url);
  const { subscribe } = await raw.call({ subscribe: { channel, recover: true, recoverable: true, ...first } });
  assert.equal(subscribe.recovered, undefined);
  assert.equal(subscribe.offset, second.offset);
  assert.equal((await gateway.publish(channel, { n: 3 })).offset, second.offset + 1);
});

test('without history, asking to recover is asking to subscribe', async (t) => {
  const client = await connected(t, gateway.url);
  const subscription = await subscribed(client, 'unkept:a', { recoverable: true, positioned: true });
  assert.deepEqual([subscription.context.recoverable, subscription.context.positioned], [false, false]);
  const back = next(subscription, 'subscribed');
  await cut(client);
  assert.deepEqual([(await back).wasRecovering, subscription.state], [false, 'subscribed']);
});

test('a namespace can force recovery on those that did not ask', async (t) => {
  const client = await connected(t, gateway.url);
  const subscription = await subscribed(client, 'forced:a');
  assert.equal(subscription.context.recoverable, true);
  const back = next(subscription, 'subscribed');
  await cut(client);
  await gateway.publish('forced:a', { n: 1 });
  assert.equal((await back).recovered, true);
  await subscription.publications.count(1);
});

test('a herd that comes back at once recovers as one', async (t) => {
  const channel = 'kept:herd';
  const clients = await Promise.all(Array.from({ length: 60 }, (_, n) => connected(t, gateway.url, { encoding: ENCODINGS[n % 2] })));
  const subscriptions = await Promise.all(clients.map((client) => subscribed(client, channel, { recoverable: true })));
  await gateway.publish(channel, { n: 0 });
  await Promise.all(subscriptions.map(({ publications }) => publications.count(1)));
  for (const client of clients) client.disconnect();
  for (let n = 1; n <= 400; n++) await gateway.publish(channel, { n, fill: 'x'.repeat(100) });
  const back = subscriptions.map((subscription) => next(subscription, 'subscribed'));
  for (const client of clients) client.connect();
  for (const context of await Promise.all(back)) assert.deepEqual([context.recovered, context.hasRecoveredPublications], [true, true]);
  const wanted = Array.from({ length: 401 }, (_, n) => n);
  for (const { publications } of subscriptions) {
    assert.deepEqual((await publications.count(401)).map(({ data }) => dataOf(data).n), wanted);
  }
});

test('unsubscribe and subscribe anew does not recover', async (t) => {
  const channel = 'kept:anew';
  const client = await connected(t, gateway.url);
  const subscription = watched(client, channel, { recoverable: true });
  const first = next(subscription, 'subscribed');
  subscription.subscribe();
  await first;
  subscription.unsubscribe();
  await gateway.publish(channel, { n: 1 });
  const second = next(subscription, 'subscribed');
  subscription.subscribe();
  const context = await second;
  // The SDK keeps the position, so what was published meanwhile is there.
  assert.equal(context.wasRecovering, true);
  assert.equal(context.recovered, true);
});

test('what was removed from the history is not recovered, although somebody has just recovered it', async (t) => {
  const channel = 'kept:removed';
  const { offset } = await gateway.publish(channel, { n: 1 });
  const recover = async () => {
    const client = await RawClient.connected(t, gateway.url);
    return (await client.call({ subscribe: { channel, recover: true, offset: offset - 1 } })).subscribe;
  };
  // One for each shard, or nearly: each keeps what it has fetched for whoever comes next.
  for (let n = 0; n < 12; n++) assert.deepEqual((await recover()).publications, [{ data: { n: 1 }, offset }]);
  await gateway.api('history_remove', { channel });
  for (let n = 0; n < 12; n++) {
    const { recovered, publications, offset: top } = await recover();
    assert.deepEqual({ recovered, publications, top }, { recovered: undefined, publications: undefined, top: offset });
  }
});
