// Connecting: who may, as whom, for how long.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import WebSocket from 'ws';
import { connected, ENCODINGS, sdk } from './harness/clients.mjs';
import { ALL, Gateway } from './harness/gateway.mjs';
import { RawClient } from './harness/raw.mjs';
import { connectionToken, SECRET, seconds, sign, subscriptionToken } from './harness/token.mjs';
import { next } from './harness/wait.mjs';

let gateway;
let closed;
before(async () => {
  gateway = await Gateway.start({ client: { expired_close_delay: '1s', stale_close_delay: '1s', ping_interval: '1s', pong_timeout: '500ms', user_connection_limit: 2 } });
  closed = await Gateway.start({ client: { allow_anonymous_connect_without_token: false, allowed_origins: ['https://*.example.com'] } });
});
after(async () => {
  await gateway?.kill();
  await closed?.kill();
});

for (const encoding of ENCODINGS) {
  test(`${encoding}: an anonymous client connects and hears pings`, async (t) => {
    const client = await connected(t, gateway.url, { encoding });
    assert.match(client.context.client, /^[0-9a-f-]{36}$/);
    // The SDK would leave with "no ping" if none came, and the gateway with 3012 if no pong did.
    await new Promise((resolve) => setTimeout(resolve, 2500));
    assert.equal(client.state, 'connected');
  });

  test(`${encoding}: a token says who it is`, async (t) => {
    const client = await connected(t, gateway.url, { encoding, token: connectionToken('ann') });
    const stats = await gateway.api('user_status', { user: 'ann' });
    assert.equal(stats.connections, 1);
    client.disconnect();
  });

  test(`${encoding}: an expired token is exchanged for a new one`, async (t) => {
    let asked = 0;
    const client = await connected(t, gateway.url, {
      encoding,
      token: connectionToken('bea', { exp: seconds(-10) }),
      getToken: async () => {
        asked += 1;
        return connectionToken('bea');
      },
    });
    assert.equal(asked, 1);
    client.disconnect();
  });

  test(`${encoding}: a connection about to expire is refreshed and stays`, async (t) => {
    let asked = 0;
    let told;
    const refreshed = new Promise((resolve) => { told = resolve; });
    const client = await connected(t, gateway.url, {
      encoding,
      token: connectionToken('cat', { exp: seconds(2) }),
      getToken: async () => {
        asked += 1;
        if (asked === 2) told();
        return connectionToken('cat', { exp: seconds(2) });
      },
    });
    let left = false;
    client.on('connecting', () => { left = true; });
    // The second refresh comes only if the first was taken.
    await refreshed;
    assert.equal(left, false);
    assert.equal(client.state, 'connected');
  });
}

test('a bad token ends the client for good', async (t) => {
  for (const token of [
    sign({ sub: 'ann', exp: seconds(60) }, 'another secret'),
    subscriptionToken('ann', 'room'),
    'no.token.atall',
    sign({ sub: 'ann', exp: 'soon' }),
  ]) {
    const client = sdk(gateway.url, { token });
    t.after(() => client.disconnect());
    const gone = next(client, 'disconnected');
    client.connect();
    assert.equal((await gone).code, 3500);
  }
});

test('without leave, nobody connects anonymously', async (t) => {
  for (const [token, code] of [['', 3501], [connectionToken(''), 3507]]) {
    const client = sdk(closed.url, { token });
    t.after(() => client.disconnect());
    const gone = next(client, 'disconnected');
    client.connect();
    assert.equal((await gone).code, code);
  }
});

test('a token in the address or in a header is no token', async (t) => {
  const token = connectionToken('ann');
  const headers = { Authorization: `Bearer ${token}`, Cookie: `token=${token}` };
  const client = await RawClient.open(t, `${closed.url}?token=${token}&access_token=${token}`, { headers });
  client.ws.send('{"id":1,"connect":{}}');
  assert.equal((await client.close()).code, 3501);
});

test('no log has tokens, secrets, or what clients say', async (t) => {
  const chatty = await Gateway.start({ rest: { log: { level: 'trace', format: 'json' } }, client: { token: { hmac_secret_key: SECRET } }, namespaces: { '': ALL } });
  t.after(() => chatty.kill());
  const token = connectionToken('ann');
  const client = await RawClient.connected(t, `${chatty.url}?token=${token}`, { token, data: { d: 'said-in-data' } });
  await client.call({ publish: { channel: 'room', data: 'said-in-public' } });
  await client.call({ rpc: { method: 'said-in-a-method', data: 'said-in-rpc' } });
  await chatty.publish('room', 'said-by-backend');
  const forged = await RawClient.open(t, chatty.url);
  forged.ws.send(JSON.stringify({ id: 1, connect: { token: sign({ sub: 'bea' }, 'a wrong secret') } }));
  assert.equal((await forged.close()).code, 3500);
  await chatty.stop();
  assert.match(chatty.output, /"level":"DEBUG"/);
  const parts = token.split('.').slice(1);
  for (const secret of [...parts, SECRET, chatty.key, 'said-', 'bea']) assert.ok(!chatty.output.includes(secret), `${secret} in\n${chatty.output}`);
});

test('a page of a foreign origin is refused with 403, one of an allowed origin is not', async (t) => {
  const token = connectionToken('ann');
  await RawClient.connected(t, closed.url, { token }, { origin: 'https://app.example.com' });
  await assert.rejects(RawClient.open(t, closed.url, { origin: 'https://evil.test' }), /403|in vain|Unexpected/);
});

test('a refresh with an expired token is 3005, with another user\'s 3500', async (t) => {
  for (const [token, code] of [[connectionToken('dan', { exp: seconds(-1) }), 3005], [connectionToken('eve'), 3500]]) {
    const client = await RawClient.connected(t, gateway.url, { token: connectionToken('dan') });
    assert.equal(client.connection.expires, true);
    client.call({ refresh: { token } }).catch(() => {});
    assert.equal((await client.close()).code, code);
  }
});

test('a connection whose token ran out is closed with 3005 after its grace', async (t) => {
  const client = await RawClient.connected(t, gateway.url, { token: connectionToken('fay', { exp: seconds(2) }) });
  assert.ok(client.connection.ttl >= 1);
  assert.deepEqual(await client.close(), { code: 3005, reason: 'connection expired' });
});

test('expire_at stands over exp', async (t) => {
  const client = await RawClient.connected(t, gateway.url, { token: sign({ sub: 'gus', exp: seconds(60), expire_at: 0 }) });
  assert.equal(client.connection.expires, undefined);
});

test('who sends no connect is closed with 3502', async (t) => {
  const client = await RawClient.open(t, gateway.url);
  assert.deepEqual(await client.close(), { code: 3502, reason: 'stale' });
});

test('who answers no ping is closed with 3012', async (t) => {
  const client = await RawClient.open(t, gateway.url);
  const send = client.ws.send.bind(client.ws);
  client.ws.send = (text) => text !== '{}' && send(text);
  await client.call({ connect: {} });
  assert.equal((await client.close()).code, 3012);
});

test('a pong without a ping is 3501', async (t) => {
  const client = await RawClient.connected(t, gateway.url);
  client.ws.send('{}\n{}');
  assert.equal((await client.close()).code, 3501);
});

test('a connect result names ping and pong', async (t) => {
  const client = await RawClient.connected(t, gateway.url);
  assert.equal(client.connection.ping, 1);
  assert.equal(client.connection.pong, true);
  assert.match(client.connection.version, /^ringway /);
});

test('native pings replace the protocol\'s where asked for', async (t) => {
  const client = await RawClient.connected(t, `${gateway.url}?cf_ws_frame_ping_pong=true`);
  assert.equal(client.connection.ping, undefined);
  await next(client.ws, 'ping');
});

test('more connections of a user than its limit are refused with 3504', async (t) => {
  const token = connectionToken('hal');
  await RawClient.connected(t, gateway.url, { token });
  const second = await RawClient.connected(t, gateway.url, { token });
  const third = await RawClient.open(t, gateway.url);
  third.call({ connect: { token } }).catch(() => {});
  assert.equal((await third.close()).code, 3504);
  // A place is free again as soon as one leaves.
  second.ws.close();
  await second.closed;
  await RawClient.connected(t, gateway.url, { token });
});

test('a node takes as many connections as its limit says, wherever the kernel puts them, and no more', async (t) => {
  const small = await Gateway.start({ client: { connection_limit: 4 } });
  t.after(() => small.kill());
  const clients = await Promise.all(Array.from({ length: 4 }, () => RawClient.connected(t, small.url)));
  for (let n = 0; n < 10; n++) {
    const refused = new WebSocket(small.url);
    refused.on('error', () => {});
    const [, response] = await once(refused, 'unexpected-response');
    assert.equal(response.statusCode, 503);
    assert.ok(Number(response.headers['retry-after']) > 0);
    refused.terminate();
  }
  clients[0].ws.close();
  await clients[0].closed;
  await RawClient.connected(t, small.url);
});

test('the refused are told by HTTP status', async () => {
  const base = `http://127.0.0.1:${gateway.port}`;
  for (const [path, options, status] of [
    ['/connection/websocket', {}, 426],
    ['/connection/websocket', { method: 'POST', body: 'x' }, 405],
    ['/other', {}, 404],
    ['/api/info', { method: 'POST', body: '{}' }, 404],
  ]) {
    const response = await fetch(base + path, options);
    await response.text();
    assert.equal(response.status, status, `${options.method ?? 'GET'} ${path}`);
  }
});
