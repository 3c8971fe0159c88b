// Publications: who gets them, in what order, with what; and the commands beside them.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { connected, dataFor, dataOf, ENCODINGS, subscribed } from './harness/clients.mjs';
import { ALL, Gateway, HISTORY, PRESENCE } from './harness/gateway.mjs';
import { RawClient } from './harness/raw.mjs';
import { connectionToken, subscriptionToken } from './harness/token.mjs';
import { next } from './harness/wait.mjs';

let gateway;
before(async () => {
  gateway = await Gateway.start({ namespaces: { '': { ...ALL, ...PRESENCE }, kept: { ...ALL, ...HISTORY } } });
});
after(() => gateway?.kill());

for (const encoding of ENCODINGS) {
  test(`${encoding}: a backend's publication arrives with its tags`, async (t) => {
    const client = await connected(t, gateway.url, { encoding });
    const subscription = await subscribed(client, `tags-${encoding}`);
    assert.deepEqual(await gateway.publish(subscription.channel, { a: [1, 'ö\n'] }, { tags: { kind: 'new', empty: '' } }), {});
    const [publication] = await subscription.publications.count(1);
    assert.deepEqual(dataOf(publication.data), { a: [1, 'ö\n'] });
    assert.deepEqual(publication.tags, { kind: 'new', empty: '' });
    assert.equal(publication.info, undefined);
    assert.equal(publication.offset, undefined);
  });

  test(`${encoding}: a client's publication says whose it is`, async (t) => {
    const channel = `info-${encoding}`;
    const publisher = await connected(t, gateway.url, { encoding, token: connectionToken('ann', { info: { name: 'Ann' } }) });
    const [own, other] = [
      await subscribed(publisher, channel, { token: subscriptionToken('ann', channel, { info: { seat: 3 } }) }),
      await subscribed(await connected(t, gateway.url, { encoding }), channel),
    ];
    await own.publish(dataFor(publisher, { text: 'hi' }));
    for (const subscription of [own, other]) {
      const [publication] = await subscription.publications.count(1);
      assert.deepEqual(dataOf(publication.data), { text: 'hi' });
      assert.equal(publication.info.user, 'ann');
      assert.equal(publication.info.client, publisher.context.client);
      assert.deepEqual(dataOf(publication.info.connInfo), { name: 'Ann' });
      assert.deepEqual(dataOf(publication.info.chanInfo), { seat: 3 });
    }
  });

  test(`${encoding}: publishing needs no subscription`, async (t) => {
    const client = await connected(t, gateway.url, { encoding });
    const listener = await subscribed(await connected(t, gateway.url), `unsubscribed-${encoding}`);
    await client.publish(listener.channel, dataFor(client, { n: 1 }));
    await listener.publications.count(1);
  });

  test(`${encoding}: joins, leaves, presence`, async (t) => {
    const channel = `people-${encoding}`;
    const ann = await connected(t, gateway.url, { encoding, token: connectionToken('ann', { info: { name: 'Ann' } }) });
    const watching = await subscribed(ann, channel, { joinLeave: true });
    const bob = await connected(t, gateway.url, { encoding, token: connectionToken('bob') });
    const bobs = await subscribed(bob, channel);
    const join = await watching.events.find((event) => event.type === 'join' && event.info.user === 'bob', 'the join');
    assert.equal(join.info.client, bob.context.client);
    const own = await watching.events.find((event) => event.type === 'join' && event.info.user === 'ann', 'its own join');
    assert.deepEqual(dataOf(own.info.connInfo), { name: 'Ann' });
    const { clients } = await watching.presence();
    assert.deepEqual(Object.keys(clients).sort(), [ann.context.client, bob.context.client].sort());
    assert.equal(clients[bob.context.client].user, 'bob');
    assert.deepEqual(dataOf(clients[ann.context.client].connInfo), { name: 'Ann' });
    const { numClients, numUsers } = await watching.presenceStats();
    assert.deepEqual([numClients, numUsers], [2, 2]);
    bobs.unsubscribe();
    await watching.events.find((event) => event.type === 'leave' && event.info.client === bob.context.client, 'the leave');
    const again = await connected(t, gateway.url, { encoding, token: connectionToken('bob') });
    await subscribed(again, channel);
    again.disconnect();
    await watching.events.find((event) => event.type === 'leave' && event.info.client === again.context.client, 'the leave of a disconnect');
    assert.equal((await watching.presenceStats()).numClients, 1);
    assert.equal(bobs.events.items.some((event) => event.type === 'join'), false, 'it did not ask for joins');
  });

  test(`${encoding}: history by limit, since and reverse`, async (t) => {
    const channel = `kept:pages-${encoding}`;
    const client = await connected(t, gateway.url, { encoding });
    const subscription = await subscribed(client, channel);
    for (let n = 1; n <= 10; n++) await gateway.publish(channel, { n });
    const numbers = (result) => result.publications.map((publication) => dataOf(publication.data).n);
    const all = await subscription.history({ limit: -1 });
    assert.deepEqual(numbers(all), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    const [first] = all.publications;
    assert.deepEqual(all.publications.map((publication) => publication.offset - first.offset), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert.equal(all.offset, all.publications[9].offset);
    const top = await subscription.history({ limit: 0 });
    assert.deepEqual([top.publications, top.offset, top.epoch], [[], all.offset, all.epoch]);
    assert.deepEqual(numbers(await subscription.history({ limit: 3 })), [1, 2, 3]);
    assert.deepEqual(numbers(await subscription.history({ limit: 3, reverse: true })), [10, 9, 8]);
    const since = { offset: all.publications[4].offset, epoch: all.epoch };
    assert.deepEqual(numbers(await subscription.history({ limit: 2, since })), [6, 7]);
    assert.deepEqual(numbers(await subscription.history({ limit: 2, since, reverse: true })), [4, 3]);
    assert.deepEqual(numbers(await subscription.history({ limit: -1, since })), [6, 7, 8, 9, 10]);
    await assert.rejects(subscription.history({ limit: 1, since: { offset: since.offset, epoch: 'another' } }), { code: 112 });
  });

  test(`${encoding}: rpc has no methods in production, send is taken`, async (t) => {
    const client = await connected(t, gateway.url, { encoding });
    await assert.rejects(client.rpc('echo', dataFor(client, {})), { code: 104 });
    await client.send(dataFor(client, { any: 'thing' }));
    await client.ready();
    assert.equal(client.state, 'connected');
  });

  test(`${encoding}: rpc echo answers under --dev`, async (t) => {
    const dev = await Gateway.start({ dev: true });
    t.after(() => dev.kill());
    const client = await connected(t, dev.url, { encoding });
    const { data } = await client.rpc('echo', dataFor(client, { deep: ['ß'] }));
    assert.deepEqual(dataOf(data), { deep: ['ß'] });
  });
}

test('both encodings get the same publications in the same order', async (t) => {
  const channel = 'kept:both';
  const clients = await Promise.all(Array.from({ length: 6 }, (_, n) => connected(t, gateway.url, { encoding: ENCODINGS[n % 2] })));
  const subscriptions = await Promise.all(clients.map((client) => subscribed(client, channel)));
  const count = 600;
  // Three publish at once: the order is the gateway's, and one for all.
  await Promise.all([0, 1, 2].map(async (publisher) => {
    const client = clients[publisher];
    for (let n = 0; n < count / 3; n++) {
      const taken = n % 5 === 0 ? gateway.publish(channel, { publisher, n }) : client.publish(channel, dataFor(client, { publisher, n }));
      await taken;
    }
  }));
  const seen = await Promise.all(subscriptions.map(async ({ publications }) => {
    const items = await publications.count(count);
    return items.map(({ data, offset }) => ({ ...dataOf(data), offset }));
  }));
  for (const other of seen) assert.deepEqual(other, seen[0]);
  seen[0].forEach((publication, at) => assert.equal(publication.offset, seen[0][0].offset + at));
  for (const publisher of [0, 1, 2]) {
    assert.deepEqual(seen[0].filter((publication) => publication.publisher === publisher).map((publication) => publication.n), Array.from({ length: count / 3 }, (_, n) => n));
  }
});

test('bytes that are no JSON reach Protobuf clients and end JSON subscribers with 3506', async (t) => {
  const channel = 'binary';
  const [binary, json, elsewhere] = [await connected(t, gateway.url, { encoding: 'protobuf' }), await connected(t, gateway.url), await connected(t, gateway.url)];
  const subscription = await subscribed(binary, channel);
  await subscribed(json, channel);
  const untouched = await subscribed(elsewhere, 'binary-not');
  const gone = next(json, 'disconnected');
  const bytes = new Uint8Array([0, 255, 1, 10, 128]);
  await subscription.publish(bytes);
  const [publication] = await subscription.publications.count(1);
  assert.deepEqual([...publication.data], [...bytes]);
  assert.equal((await gone).code, 3506);
  await gateway.publish('binary-not', { n: 1 });
  await untouched.publications.count(1);
  // The same by the server API.
  const late = await connected(t, gateway.url);
  await subscribed(late, channel);
  const goneToo = next(late, 'disconnected');
  await gateway.api('publish', { channel, b64data: Buffer.from(bytes).toString('base64') });
  assert.equal((await goneToo).code, 3506);
  assert.deepEqual([...(await subscription.publications.count(2))[1].data], [...bytes]);
});

test('JSON with newlines inside stays one publication', async (t) => {
  const client = await connected(t, gateway.url);
  const subscription = await subscribed(client, 'newlines');
  await gateway.api('publish', { channel: 'newlines', b64data: Buffer.from('{\n"a":\r\n1}').toString('base64') });
  const [publication] = await subscription.publications.count(1);
  assert.deepEqual(publication.data, { a: 1 });
});

test('commands of one frame are worked on in their order', async (t) => {
  const client = await RawClient.open(t, gateway.url);
  const channel = 'kept:pipelined';
  const publish = (n) => ({ publish: { channel, data: { n } } });
  const [{ connect }, ...replies] = await client.batch([
    { connect: {} }, { subscribe: { channel } }, publish(1), { send: { data: 1 } }, publish(2), { presence: { channel } },
    { history: { channel, limit: 10 } }, publish(3), { unsubscribe: { channel } }, publish(4), { history: { channel, limit: 10 } },
  ]);
  assert.ok(connect.client);
  assert.deepEqual(replies.map((reply) => Object.keys(reply).find((key) => key !== 'id')), [
    'subscribe', 'publish', 'publish', 'error', 'history', 'publish', 'unsubscribe', 'publish', 'history',
  ]);
  assert.deepEqual(replies[4].history.publications.map((publication) => publication.data.n), [1, 2]);
  assert.deepEqual(replies[8].history.publications.map((publication) => publication.data.n), [1, 2, 3, 4]);
  assert.deepEqual(client.inbox.items.filter((reply) => reply.id).map((reply) => reply.id), replies.map((_, at) => at + 1).concat(replies.length + 1), 'replies come in order');
  const firstPush = client.inbox.items.findIndex((reply) => reply.push);
  assert.ok(firstPush < 0 || firstPush > client.inbox.items.findIndex((reply) => reply.subscribe), 'the reply comes before the first publication');
  assert.ok(client.pushes('pub').every((publication) => publication.data.n <= 3), 'nothing after the unsubscribe');
});

test('many replies share frames', async (t) => {
  const client = await RawClient.connected(t, gateway.url);
  const before = client.frames.items.length;
  await client.batch(Array.from({ length: 200 }, () => ({ ping: {} })));
  assert.ok(client.frames.items.length > before);
});

test('a trailing newline and a batch of pings are legal, an empty frame is not', async (t) => {
  const client = await RawClient.connected(t, gateway.url);
  client.ws.send(`${JSON.stringify({ id: ++client.id, ping: {} })}\n`);
  assert.deepEqual(await client.reply(client.id), { id: client.id, ping: {} });
  client.ws.send('');
  assert.equal((await client.close()).code, 3501);
});

test('empty data is refused with 107', async (t) => {
  const client = await RawClient.connected(t, gateway.url);
  assert.equal((await client.call({ publish: { channel: 'room' } })).error.code, 107);
  await assert.rejects(gateway.api('publish', { channel: 'room' }), { code: 107 });
});

test('an unknown command is 104', async (t) => {
  const client = await RawClient.connected(t, gateway.url);
  assert.equal((await client.call({ levitate: {} })).error.code, 104);
});
