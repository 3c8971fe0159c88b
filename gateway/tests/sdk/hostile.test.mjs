// Input that is wrong in every way we know, each with its answer; and a healthy client beside, which notices nothing.
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { connected, ENCODINGS, subscribed } from './harness/clients.mjs';
import { ALL, Gateway, HISTORY, PRESENCE } from './harness/gateway.mjs';
import { Bytes, frame, RawClient, upgrade } from './harness/raw.mjs';
import { until, within } from './harness/wait.mjs';

let gateway;
const healthy = [];
const closings = [];
let sent = 0;

before(async () => {
  gateway = await Gateway.start({
    client: { stale_close_delay: '3s' },
    namespaces: { '': { ...ALL, ...HISTORY, ...PRESENCE } },
  });
  // Not closed with a test: they outlive all of them.
  const forAll = { after: (close) => closings.push(close) };
  for (const encoding of ENCODINGS) healthy.push(await subscribed(await connected(forAll, gateway.url, { encoding }), 'healthy'));
});
after(async () => {
  for (const close of closings) close();
  await gateway?.kill();
});

/** Both healthy clients get what is published, through the connections that they have had from the start. */
afterEach(async () => {
  sent += 1;
  await gateway.publish('healthy', { n: sent });
  for (const { publications } of healthy) assert.equal((await publications.count(sent)).length, sent);
  for (const { events } of healthy) assert.equal(events.items.filter((event) => event.type === 'subscribed').length, 1);
});

const json = (value) => frame(JSON.stringify(value));
const CONNECT = json({ id: 1, connect: {} });
const bytes = (...list) => Buffer.from(list);

describe('requests', () => {
  const key = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==';
  const plain = (...lines) => `${lines.join('\r\n')}\r\n\r\n`;
  for (const [what, request, status] of [
    ['no HTTP', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n', 400],
    ['no version of HTTP', 'GET /\r\n\r\n', 400],
    ['HTTP/1.0', plain('GET /connection/websocket HTTP/1.0', 'Host: a', 'Upgrade: websocket', 'Connection: Upgrade', 'Sec-WebSocket-Version: 13', key), 505],
    ['no host', plain('GET /connection/websocket HTTP/1.1', 'Upgrade: websocket', 'Connection: Upgrade', 'Sec-WebSocket-Version: 13', key), 400],
    ['no key', plain('GET /connection/websocket HTTP/1.1', 'Host: a', 'Upgrade: websocket', 'Connection: Upgrade', 'Sec-WebSocket-Version: 13'), 400],
    ['a short key', plain('GET /connection/websocket HTTP/1.1', 'Host: a', 'Upgrade: websocket', 'Connection: Upgrade', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: YQ=='), 400],
    ['no upgrade', plain('GET /connection/websocket HTTP/1.1', 'Host: a'), 426],
    ['another method', () => upgrade(gateway.port, { method: 'POST' }), 405],
    ['another path', () => upgrade(gateway.port, { path: '/' }), 404],
    ['the API\'s path', () => upgrade(gateway.port, { path: '/api/publish' }), 404],
    ['an oversize header', () => upgrade(gateway.port, { headers: [`X: ${'a'.repeat(9000)}`] }), 431],
    ['a header without an end', () => `GET /connection/websocket HTTP/1.1\r\nHost: a\r\nX: ${'a'.repeat(20_000)}`, 431],
    ['too many lines', () => upgrade(gateway.port, { headers: Array.from({ length: 200 }, (_, n) => `X${n}: 1`) }), 431],
    ['a body', () => upgrade(gateway.port, { headers: ['Content-Length: 3'] }), 400],
    ['an obsolete folded line', () => upgrade(gateway.port, { headers: ['X: a', ' folded'] }), 400],
  ]) {
    test(`${what}: ${status}`, async (t) => {
      const client = await Bytes.open(t, gateway.port);
      client.write(typeof request === 'function' ? request() : request);
      const response = await client.response();
      assert.equal(response.status, status);
      assert.equal(response.headers.connection.split(',')[0], 'close');
      await client.end();
    });
  }

  test('version 8: 426, and the version that is spoken', async (t) => {
    const client = await Bytes.open(t, gateway.port);
    client.write(upgrade(gateway.port, { version: '8' }));
    const { status, headers } = await client.response();
    assert.deepEqual([status, headers['sec-websocket-version']], [426, '13']);
  });

  test('byte by byte: 101, and frames may follow in the same piece', async (t) => {
    const client = await Bytes.open(t, gateway.port);
    client.socket.setNoDelay(true);
    const request = upgrade(gateway.port);
    for (const byte of request.slice(0, -1)) {
      client.write(byte);
      await new Promise((resolve) => setImmediate(resolve));
    }
    client.write(Buffer.concat([Buffer.from('\n'), CONNECT]));
    assert.equal((await client.response()).status, 101);
    assert.match(String((await client.frame()).payload), /"connect"/);
  });

  test('half a handshake: 408 when its time is over', async (t) => {
    const client = await Bytes.open(t, gateway.port);
    client.write('GET /connection/websocket HTTP/1.1\r\nHost: a\r\n');
    assert.equal((await client.response()).status, 408);
    await client.end();
  });

  test('nothing at all: closed when its time is over', async (t) => {
    const client = await Bytes.open(t, gateway.port);
    await client.end();
  });

  test('an empty sub-protocol is none, an unknown one is not answered', async (t) => {
    for (const [headers, answer] of [
      [['Sec-WebSocket-Protocol:'], undefined], [['Sec-WebSocket-Protocol: chat'], undefined],
      [['Sec-WebSocket-Protocol: chat, centrifuge-protobuf'], 'centrifuge-protobuf'], [['Sec-WebSocket-Protocol: centrifuge-json'], 'centrifuge-json'],
      [['Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits'], undefined],
    ]) {
      const client = await Bytes.open(t, gateway.port);
      client.write(upgrade(gateway.port, { headers }));
      const response = await client.response();
      assert.equal(response.status, 101);
      assert.equal(response.headers['sec-websocket-protocol'], answer);
      assert.equal(response.headers['sec-websocket-extensions'], undefined);
    }
  });
});

describe('frames', () => {
  for (const [what, input, code] of [
    ['unmasked', frame('{}', { mask: false }), 1002],
    ['reserved bit 1', frame('{}', { first: 0xc1 }), 1002],
    ['reserved bit 2', frame('{}', { first: 0xa1 }), 1002],
    ['reserved bit 3', frame('{}', { first: 0x91 }), 1002],
    ['opcode 3', frame('{}', { first: 0x83 }), 1002],
    ['opcode 11', frame('{}', { first: 0x8b }), 1002],
    ['a length of 2^63', frame('', { length: 1n << 63n }), 1002],
    ['a length of 2^63 - 1', frame('', { length: (1n << 63n) - 1n }), 1009],
    ['a length of 4 GiB', frame('', { length: 1n << 32n }), 1009],
    ['a message over 64 KiB', frame('x'.repeat(65_537)), 1009],
    ['fragments over 64 KiB', Buffer.concat([frame('x'.repeat(40_000), { first: 0x01 }), frame('x'.repeat(40_000), { first: 0x80 })]), 1009],
    ['a length not in its shortest form', bytes(0x81, 0xfe, 0, 2, 0, 0, 0, 0, 123, 125), 1002],
    ['a long ping', frame('x'.repeat(126), { first: 0x89 }), 1002],
    ['a fragmented ping', frame('', { first: 0x09 }), 1002],
    ['a continuation of nothing', frame('{}', { first: 0x80 }), 1002],
    ['a message inside a message', Buffer.concat([frame('{', { first: 0x01 }), frame('{}')]), 1002],
    ['a close of one byte', frame('x', { first: 0x88 }), 1002],
    ['a close with a code that must not be sent', frame(bytes(3, 237), { first: 0x88 }), 1002],
    ['a close whose reason is no UTF-8', frame(bytes(3, 232, 0xff), { first: 0x88 }), 1007],
    ['text that is no UTF-8', frame(bytes(0x7b, 0xff, 0x7d)), 1007],
    ['text cut inside a character', frame(bytes(0xe2, 0x82)), 1007],
    ['a surrogate in UTF-8', frame(bytes(0xed, 0xa0, 0x80)), 1007],
    ['the client\'s own close', frame(bytes(3, 232), { first: 0x88 }), 1000],
    ['the client\'s own close, 4000', frame(bytes(0x0f, 0xa0), { first: 0x88 }), 4000],
  ]) {
    test(`${what}: ${code}`, async (t) => {
      const client = await Bytes.upgraded(t, gateway.port);
      client.write(input);
      assert.equal(await client.closeCode(), code);
      client.write(frame(bytes(code >> 8, code & 255), { first: 0x88 }));
      await client.end();
    });
  }

  test('text that is no UTF-8 is refused before the message is whole', async (t) => {
    const client = await Bytes.upgraded(t, gateway.port);
    client.write(frame(bytes(0xff), { first: 0x01 }));
    assert.equal(await client.closeCode(), 1007);
  });

  test('a ping is answered with its payload, between fragments too', async (t) => {
    const client = await Bytes.upgraded(t, gateway.port);
    client.write(Buffer.concat([frame('{"id":1,', { first: 0x01 }), frame('are you there', { first: 0x89 }), frame('"connect":{}}', { first: 0x80 })]));
    const pong = await client.frame();
    assert.deepEqual([pong.first, String(pong.payload)], [0x8a, 'are you there']);
    assert.match(String((await client.frame()).payload), /"connect"/);
  });

  test('too many fragments: 1009', async (t) => {
    const client = await Bytes.upgraded(t, gateway.port);
    client.write(Buffer.concat([frame(' ', { first: 0x01 }), ...Array.from({ length: 2000 }, () => frame(' ', { first: 0x00 }))]));
    assert.equal(await client.closeCode(), 1009);
  });
});

describe('commands', () => {
  const deep = (depth) => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;
  const command = (text) => Buffer.concat([CONNECT, frame(text)]);
  for (const [what, input, code] of [
    ['before the connect: subscribe', json({ id: 1, subscribe: { channel: 'a' } }), 3501],
    ['before the connect: ping', json({ id: 1, ping: {} }), 3501],
    ['before the connect: a pong', frame('{}'), 3501],
    ['a second connect', Buffer.concat([CONNECT, json({ id: 2, connect: {} })]), 3501],
    ['a connect without an id', json({ connect: {} }), 3501],
    ['a command without an id', command('{"ping":{}}'), 3501],
    ['no JSON', command('hello'), 3501],
    ['half JSON', command('{"id":2,"ping":{'), 3501],
    ['two values in one line', command('{"id":2,"ping":{}} {"id":3,"ping":{}}'), 3501],
    ['an array', command('[]'), 3501],
    ['a number', command('1'), 3501],
    ['an empty line between', command('{"id":2,"ping":{}}\n\n{"id":3,"ping":{}}'), 3501],
    ['nothing', command(''), 3501],
    ['a newline', command('\n'), 3501],
    ['an id that is text', command('{"id":"2","ping":{}}'), 3501],
    ['a negative id', command('{"id":-2,"ping":{}}'), 3501],
    ['an id over 32 bits', command('{"id":4294967296,"ping":{}}'), 3501],
    ['a field of the wrong kind', command('{"id":2,"subscribe":{"channel":1}}'), 3501],
    ['JSON 20,000 deep', command(`{"id":2,"publish":{"channel":"a","data":${'['.repeat(20_000)}${']'.repeat(20_000)}}}`), 3501],
    ['JSON 5,000 deep in an unknown field', command(`{"id":2,"ping":{},"x":${deep(5000)}}`), 3501],
    ['a lone surrogate', command('{"id":2,"subscribe":{"channel":"\\ud800"}}'), 3501],
    ['binary that is no text', Buffer.concat([CONNECT, frame(bytes(0xff, 0xfe), { first: 0x82 })]), 1003],
  ]) {
    test(`${what}: ${code}`, async (t) => {
      const client = await Bytes.upgraded(t, gateway.port);
      client.write(input);
      assert.equal(await client.closeCode(), code);
    });
  }

  const hello = bytes(4, 8, 1, 0x22, 0); // id 1, connect {}
  for (const [what, input, code] of [
    ['text', Buffer.concat([frame(hello, { first: 0x82 }), frame('{}')]), 1003],
    ['a length beyond the frame', frame(bytes(9, 8, 1), { first: 0x82 }), 3501],
    ['a length that never ends', frame(bytes(...Array(11).fill(0x80)), { first: 0x82 }), 3501],
    ['a field of the wrong wire type', frame(bytes(4, 10, 1, 0x22, 0), { first: 0x82 }), 3501],
    ['a cut field', frame(bytes(3, 8, 1, 0x22), { first: 0x82 }), 3501],
    ['a group', frame(bytes(3, 8, 1, 0x0b), { first: 0x82 }), 3501],
    ['text that is no UTF-8', Buffer.concat([frame(hello, { first: 0x82 }), frame(bytes(7, 8, 2, 0x2a, 3, 10, 1, 0xff), { first: 0x82 })]), 3501],
    ['nothing', Buffer.concat([frame(hello, { first: 0x82 }), frame('', { first: 0x82 })]), 3501],
    ['a command before the connect', frame(bytes(4, 8, 1, 0x5a, 0), { first: 0x82 }), 3501],
    ['two connects', Buffer.concat([frame(hello, { first: 0x82 }), frame(bytes(4, 8, 2, 0x22, 0), { first: 0x82 })]), 3501],
  ]) {
    test(`Protobuf, ${what}: ${code}`, async (t) => {
      const client = await Bytes.upgraded(t, gateway.port, { headers: ['Sec-WebSocket-Protocol: centrifuge-protobuf'] });
      client.write(input);
      assert.equal(await client.closeCode(), code);
    });
  }

  test('odd and huge channel names: 107', async (t) => {
    const client = await RawClient.connected(t, gateway.url);
    for (const channel of ['', 'x'.repeat(256), 'x'.repeat(60_000), 'ä', '\u0000', '\u007f', 'a\tb', '😀']) {
      for (const method of ['subscribe', 'publish', 'presence', 'presence_stats', 'history']) {
        const reply = await client.call({ [method]: { channel, ...(method === 'publish' ? { data: 1 } : {}) } });
        assert.equal(reply.error?.code, 107, `${method} ${JSON.stringify(channel.slice(0, 20))}`);
      }
    }
    for (const channel of ['a b', '*', '>', '.', '..', '/', '&', '%00', '"', '\\', '{}', '$', '~'.repeat(255)]) {
      const reply = await client.call({ publish: { channel, data: channel } });
      assert.ok(reply.publish, channel);
      if (channel.startsWith('$')) continue;
      assert.ok((await client.call({ subscribe: { channel } })).subscribe, channel);
      assert.ok((await client.call({ publish: { channel, data: channel } })).publish);
      await client.push('pub', (publication, push) => push.channel === channel && publication.data === channel);
    }
  });

  test('names and versions over their limit are cut', async (t) => {
    const client = await RawClient.connected(t, gateway.url, { name: 'n'.repeat(1000), version: 'v'.repeat(1000), data: { any: 1 }, headers: { a: 'b' } });
    assert.ok(client.connection.client);
  });

  test('subscriptions of a connect that nobody granted are ignored', async (t) => {
    const client = await RawClient.connected(t, gateway.url, { subs: { other: { recover: true, offset: 1, epoch: 'x' } } });
    assert.equal(client.connection.subs, undefined);
  });
});

describe('endings', () => {
  const connectedBytes = async (t) => {
    const client = await Bytes.upgraded(t, gateway.port);
    client.write(CONNECT);
    await client.frame();
    return client;
  };
  const subscribedBytes = async (t) => {
    const client = await connectedBytes(t);
    client.write(json({ id: 2, subscribe: { channel: 'resets', join_leave: true, recoverable: true } }));
    await client.frame();
    return client;
  };
  const connections = () => gateway.metric('ringway_connections');

  for (const [stage, open] of [
    ['before a byte', (t) => Bytes.open(t, gateway.port)],
    ['in the request', async (t) => (await Bytes.open(t, gateway.port)).write('GET /conn')],
    ['after the upgrade', (t) => Bytes.upgraded(t, gateway.port)],
    ['in a frame\'s header', async (t) => (await Bytes.upgraded(t, gateway.port)).write(bytes(0x81, 0xfe, 1))],
    ['in a frame', async (t) => (await Bytes.upgraded(t, gateway.port)).write(CONNECT.subarray(0, 12))],
    ['with the connect under way', async (t) => (await Bytes.upgraded(t, gateway.port)).write(CONNECT)],
    ['connected', connectedBytes],
    ['with a subscribe under way', async (t) => (await connectedBytes(t)).write(json({ id: 2, subscribe: { channel: 'resets' } }))],
    ['subscribed', subscribedBytes],
    ['with publications under way', async (t) => {
      const client = await subscribedBytes(t);
      for (let n = 3; n < 200; n++) client.write(json({ id: n, publish: { channel: 'resets', data: 'x'.repeat(1000) } }));
      return client;
    }],
    ['in the closing handshake', async (t) => {
      const client = await subscribedBytes(t);
      client.write(frame('x', { first: 0x80 }));
      await client.closeCode();
      return client;
    }],
  ]) {
    for (const how of ['reset', 'end']) {
      test(`${how} ${stage}`, async (t) => {
        const before = await connections();
        const clients = await Promise.all(Array.from({ length: 5 }, () => open(t)));
        for (const client of clients) {
          if (how === 'reset') client.reset();
          else client.socket.end();
        }
        // What was subscribed is gone from presence, and nothing is left open.
        await until(async () => (await connections()) <= before, 'the connections to be gone');
        await until(async () => (await gateway.api('presence_stats', { channel: 'resets' })).num_clients === 0, 'nobody to be present');
      });
    }
  }

  test('a client that never reads is closed; its channel goes on', async (t) => {
    const client = await subscribedBytes(t);
    client.socket.pause();
    const witness = await subscribed(await connected(t, gateway.url), 'resets');
    const hit = () => gateway.metric('ringway_policy_hits_total', { policy: 'disconnect' });
    const before = await hit();
    let count = 0;
    await until(async () => {
      for (let n = 0; n < 20; n++) {
        await gateway.publish('resets', { fill: 'x'.repeat(50_000) });
        count += 1;
      }
      await witness.publications.count(count);
      return (await hit()) > before;
    }, 'the policy to be applied');
    client.socket.resume();
    await client.end();
  });

  test('a message full of small questions is not given large answers without end', async (t) => {
    const client = await RawClient.connected(t, gateway.url);
    for (let n = 0; n < 10; n++) await gateway.publish('large', { fill: 'x'.repeat(50_000) });
    const replies = await client.batch(Array.from({ length: 60 }, () => ({ history: { channel: 'large', limit: 10 } })));
    const given = replies.filter((reply) => reply.history?.publications?.length === 10);
    const refused = replies.filter((reply) => reply.error?.code === 111);
    assert.equal(given.length + refused.length, 60);
    assert.ok(given.length >= 1 && refused.length >= 1, `${given.length} given`);
    // Having read them it may ask again.
    const [again] = await client.batch([{ history: { channel: 'large', limit: 10 } }]);
    assert.equal(again.history.publications.length, 10);
  });

  test('a flood of connects that say nothing leaves room for others', async (t) => {
    const idle = await Promise.all(Array.from({ length: 300 }, () => Bytes.open(t, gateway.port)));
    const client = await within(connected(t, gateway.url), 'a connect beside a flood');
    assert.equal(client.state, 'connected');
    for (const one of idle) one.reset();
  });
});
