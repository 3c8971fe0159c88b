// permessage-deflate: the SDKs over `ws`, which offers it always, and clients that offer it oddly or abuse it.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { deflateRawSync, inflateRawSync, constants } from 'node:zlib';
import { connected, dataFor, dataOf, ENCODINGS, subscribed } from './harness/clients.mjs';
import { ALL, Gateway, HISTORY } from './harness/gateway.mjs';
import { Bytes, frame, RawClient, upgrade } from './harness/raw.mjs';

const RSV1 = 0x40;
const AGREED = 'permessage-deflate; server_no_context_takeover; client_no_context_takeover';
const SENTENCE = 'the quick brown fox jumps over the lazy dog; ';

let gateway;
before(async () => {
  gateway = await Gateway.start({
    namespaces: { small: { ...ALL, ...HISTORY, compress: true }, plain: { ...ALL, ...HISTORY } },
    args: ['--debug-echo'],
  });
});
after(() => gateway?.kill());

const deflated = (data) => deflateRawSync(data, { finishFlush: constants.Z_SYNC_FLUSH }).subarray(0, -4);
const inflated = (data) => inflateRawSync(Buffer.concat([data, Buffer.from([0, 0, 255, 255])]), { finishFlush: constants.Z_SYNC_FLUSH });

/** Random printable characters: text that DEFLATE makes hardly smaller. */
function unshrinkable(count) {
  const letters = Array.from({ length: 94 }, (_, at) => String.fromCharCode(33 + at)).filter((letter) => !'"\\'.includes(letter));
  return Array.from(randomBytes(count), (byte) => letters[byte % letters.length]).join('');
}

/** A client of bytes that has offered permessage-deflate and connected. */
async function offering(t, offer = 'permessage-deflate', path) {
  const client = await Bytes.open(t, gateway.port);
  client.write(upgrade(gateway.port, { path, headers: [`Sec-WebSocket-Extensions: ${offer}`] }));
  client.answer = await client.response();
  assert.equal(client.answer.status, 101);
  if (path === undefined) {
    client.write(frame('{"id":1,"connect":{}}'));
    assert.match(String((await client.frame()).payload), /"connect"/);
  }
  return client;
}

/** The same, subscribed. */
async function subscribedTo(t, channel, offer) {
  const client = await offering(t, offer);
  client.write(frame(JSON.stringify({ id: 2, subscribe: { channel } })));
  assert.match(String((await client.frame()).payload), /"subscribe"/);
  return client;
}

for (const encoding of ENCODINGS) {
  test(`${encoding}: the SDK gets what is compressed and what is not, in order, and recovers it`, async (t) => {
    const client = await connected(t, gateway.url, { encoding });
    assert.equal(client.socket().extensions, 'permessage-deflate', '`ws` offers it, and it is agreed to');
    for (const namespace of ['small', 'plain']) {
      const channel = `${namespace}:${encoding}`;
      const subscription = await subscribed(client, channel, { recoverable: true });
      const texts = [0, 1, 3, 20, 100, 1000, 3000].map((times) => SENTENCE.repeat(times));
      for (const text of texts) await gateway.publish(channel, { text });
      // From the SDK, whose `ws` compresses what it sends.
      await subscription.publish(dataFor(client, { text: SENTENCE.repeat(200) }));
      const got = await subscription.publications.count(texts.length + 1);
      assert.deepEqual(got.map((it) => dataOf(it.data).text.length), [...texts, SENTENCE.repeat(200)].map((text) => text.length));

      const reconnected = new Promise((resolve) => { subscription.once('subscribed', resolve); });
      client.socket().terminate();
      await gateway.publish(channel, { text: SENTENCE.repeat(50) });
      assert.equal((await reconnected).recovered, true);
      await gateway.publish(channel, { text: SENTENCE.repeat(51) });
      const all = await subscription.publications.count(texts.length + 3);
      assert.deepEqual(all.slice(-2).map((it) => dataOf(it.data).text), [50, 51].map((times) => SENTENCE.repeat(times)));
      // A reply that is large enough to be compressed for one.
      const { publications } = await subscription.history({ limit: 10 });
      assert.equal(publications.length, 10);
    }
  });
}

describe('what goes over the wire', () => {
  test('one and the same compressed frame for all that offered, a plain one for the others', async (t) => {
    const channel = 'small:wire';
    const clients = await Promise.all([
      subscribedTo(t, channel), subscribedTo(t, channel, 'permessage-deflate; client_max_window_bits; server_max_window_bits=15'),
      subscribedTo(t, channel, 'permessage-deflate; server_max_window_bits=14'), subscribedTo(t, channel, 'other'),
    ]);
    await gateway.publish(channel, { text: SENTENCE.repeat(20) });
    const frames = await Promise.all(clients.map((client) => client.frame()));
    assert.deepEqual(frames.map(({ first }) => first & RSV1), [RSV1, RSV1, 0, 0]);
    assert.deepEqual(frames[0], frames[1]);
    assert.deepEqual(frames[2], frames[3]);
    assert.deepEqual(inflated(frames[0].payload), frames[2].payload);
    assert.ok(frames[0].payload.length < frames[2].payload.length / 4);
  });

  test('a publication counts as one rendition, whatever the number of those who read it', async (t) => {
    const channel = 'small:counted';
    const [client] = await Promise.all([subscribedTo(t, channel), subscribedTo(t, channel), subscribedTo(t, channel, 'other')]);
    const renditions = (labels) => gateway.metric('ringway_deflate_messages_total', { kind: 'publication', ...labels });
    const bytes = (side) => gateway.metric('ringway_deflate_bytes_total', { kind: 'publication', side });
    const look = () => Promise.all([renditions({ result: 'deflated' }), renditions({ result: 'left_plain' }), bytes('in'), bytes('out')]);
    const before = await look();
    await gateway.publish(channel, { text: 'hello' });
    await gateway.publish(channel, { text: unshrinkable(300) });
    await gateway.publish(channel, { text: SENTENCE.repeat(20) });
    const frames = [await client.frame(), await client.frame(), await client.frame()];
    assert.deepEqual(frames.map(({ first }) => first & RSV1), [0, 0, RSV1]);
    const compressed = frames[2].payload;
    // Headers: 2 bytes below 126 of payload, 4 above.
    const size = (payload) => payload.length + (payload.length < 126 ? 2 : 4);
    const delta = (await look()).map((now, at) => now - before[at]);
    assert.deepEqual(delta, [1, 1, size(inflated(compressed)), size(compressed)]);
  });

  test('small publications, and all of a namespace that does not compress, stay plain', async (t) => {
    for (const [channel, text] of [['small:short', 'hello'], ['plain:long', SENTENCE.repeat(100)]]) {
      const client = await subscribedTo(t, channel);
      await gateway.publish(channel, { text });
      assert.equal((await client.frame()).first, 0x81);
    }
  });

  test('who offers it oddly gets the first offer that can be had, or none', async (t) => {
    for (const [offer, answer] of [
      ['permessage-deflate; client_max_window_bits', AGREED],
      ['permessage-deflate; server_max_window_bits=9', `${AGREED}; server_max_window_bits=9`],
      ['permessage-deflate; server_max_window_bits=16, permessage-deflate', AGREED],
      ['permessage-deflate; unknown=1', undefined], ['permessage-deflate; server_max_window_bits', undefined],
      ['x-webkit-deflate-frame', undefined], ['permessage-deflate; server_max_window_bits="10', undefined],
    ]) {
      const client = await offering(t, offer);
      assert.equal(client.answer.headers['sec-websocket-extensions'], answer, offer);
    }
  });

  test('a window of 512 bytes is kept to', async (t) => {
    const client = await offering(t, 'permessage-deflate; server_max_window_bits=9', '/echo');
    for (const [text, isDeflated] of [[SENTENCE.repeat(10), true], [SENTENCE.repeat(100), false]]) {
      client.write(frame(deflated(text), { first: 0xc1 }));
      const { first, payload } = await client.frame();
      assert.equal((first & RSV1) !== 0, isDeflated);
      assert.equal(String(isDeflated ? inflateRawSync(Buffer.concat([payload, Buffer.from([0, 0, 255, 255])]), { windowBits: 9, finishFlush: constants.Z_SYNC_FLUSH }) : payload), text);
    }
  });
});

describe('what clients must not send', () => {
  const bomb = deflated(Buffer.alloc(15 << 20));
  for (const [what, code, path, ...frames] of [
    ['a bomb', 1009, undefined, frame(bomb, { first: 0xc1 })],
    ['a bomb in fragments', 1009, undefined, frame(bomb.subarray(0, 99), { first: 0x41 }), frame(bomb.subarray(99), { first: 0x80 })],
    ['a bomb below the size that /echo allows', 1009, '/echo', frame(bomb, { first: 0xc2 })],
    ['64 KiB and a byte', 1009, undefined, frame(deflated(Buffer.alloc(65_537, SENTENCE)), { first: 0xc1 })],
    ['what is not DEFLATE', 1007, undefined, frame(Buffer.from([7, 255]), { first: 0xc1 })],
    ['text that is not UTF-8 when it is inflated', 1007, undefined, frame(deflated(Buffer.from([0x22, 0xff, 0x22])), { first: 0xc1 })],
    ['a compressed ping', 1002, undefined, frame('', { first: 0xc9 })],
    ['a bit on the second fragment', 1002, undefined, frame('{', { first: 0x01 }), frame('}', { first: 0xc0 })],
    ['reserved bit 2', 1002, undefined, frame('{}', { first: 0xe1 })],
  ]) {
    test(`${what}: ${code}`, async (t) => {
      // A client that behaves is served meanwhile.
      const healthy = await RawClient.connected(t, gateway.url, {}, { perMessageDeflate: true });
      const client = await offering(t, 'permessage-deflate', path);
      for (const bytes of frames) client.write(bytes);
      assert.equal(await client.closeCode(), code);
      const { history } = await healthy.call({ subscribe: { channel: 'small:healthy' } }).then(() => healthy.call({ history: { channel: 'small:healthy' } }));
      assert.ok(history);
    });
  }

  test('what was inflated, and what was not, is counted', async (t) => {
    const counts = (result) => gateway.metric('ringway_inflate_messages_total', { result });
    const look = () => Promise.all([...['inflated', 'too_big', 'too_far', 'invalid'].map(counts),
      ...['in', 'out'].map((side) => gateway.metric('ringway_inflate_bytes_total', { side }))]);
    const before = await look();
    const text = SENTENCE.repeat(20);
    const good = await offering(t, 'permessage-deflate', '/echo');
    good.write(frame(deflated(text), { first: 0xc1 }));
    await good.frame();
    for (const [path, bytes] of [[undefined, bomb], ['/echo', bomb], [undefined, Buffer.from([7, 255])]]) {
      const bad = await offering(t, 'permessage-deflate', path);
      bad.write(frame(bytes, { first: 0xc1 }));
      await bad.closeCode();
    }
    const delta = (await look()).map((now, at) => now - before[at]);
    assert.deepEqual(delta, [1, 1, 1, 1, deflated(text).length, text.length]);
  });

  test('64 KiB to the byte is let in', async (t) => {
    const client = await offering(t, 'permessage-deflate', '/echo');
    // Repeated without end a sentence would shrink like a bomb.
    const text = Array.from({ length: 20_000 }, (_, n) => (n * 7919) % 10_007).join(' ').slice(0, 65_536);
    client.write(frame(deflated(text), { first: 0xc1 }));
    const { first, payload } = await client.frame();
    assert.equal(first, 0xc1);
    assert.equal(String(inflated(payload)), text);
  });

  test('without an agreement a compressed message is a broken frame', async (t) => {
    const client = await Bytes.upgraded(t, gateway.port);
    client.write(frame(deflated('{}'), { first: 0xc1 }));
    assert.equal(await client.closeCode(), 1002);
  });
});
