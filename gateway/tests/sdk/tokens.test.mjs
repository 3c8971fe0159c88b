// Tokens of every algorithm, made by another library (jose), and the keys that check them: configured or fetched.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { exportJWK, exportSPKI, generateKeyPair, SignJWT } from 'jose';
import { connected, ENCODINGS, sdk, subscribed } from './harness/clients.mjs';
import { Gateway } from './harness/gateway.mjs';
import { RawClient } from './harness/raw.mjs';
import { SECRET, seconds } from './harness/token.mjs';
import { next, until } from './harness/wait.mjs';

const encode = (text) => new TextEncoder().encode(text);
const HMAC = ['HS256', 'HS384', 'HS512'];
const RSA = ['RS256', 'RS384', 'RS512', 'PS256'];

/** A token by jose. */
const sign = (alg, key, claims = {}, header = {}) => new SignJWT({ sub: 'ann', exp: seconds(3600), ...claims }).setProtectedHeader({ alg, ...header }).sign(key);

const pairs = {};
let gateway;
before(async () => {
  for (const alg of [...RSA, 'ES256', 'ES384', 'EdDSA']) {
    pairs[alg] = await generateKeyPair(alg, { extractable: true });
  }
  gateway = await Gateway.start({
    client: {
      allow_anonymous_connect_without_token: false,
      token: {
        hmac_secret_key: SECRET,
        hmac_previous_secret_key: 'the secret before',
        rsa_public_key: await exportSPKI(pairs.RS256.publicKey),
        ecdsa_public_key: await exportSPKI(pairs.ES256.publicKey),
        eddsa_public_key: await exportSPKI(pairs.EdDSA.publicKey),
      },
    },
  });
});
after(() => gateway?.kill());

/** Ends for good with a code. */
async function refused(t, url, options, code) {
  const client = sdk(url, options);
  t.after(() => client.disconnect());
  const gone = next(client, 'disconnected');
  client.connect();
  assert.equal((await gone).code, code);
}

for (const encoding of ENCODINGS) {
  test(`${encoding}: tokens of each algorithm connect and subscribe`, async (t) => {
    for (const [alg, key] of [
      ...HMAC.map((alg) => [alg, encode(SECRET)]),
      ['HS256', encode('the secret before')],
      ['RS256', pairs.RS256.privateKey],
      ['ES256', pairs.ES256.privateKey],
      ['EdDSA', pairs.EdDSA.privateKey],
    ]) {
      const client = await connected(t, gateway.url, { encoding, token: await sign(alg, key) });
      const channel = `$${alg}`;
      await subscribed(client, channel, { token: await sign(alg, key, { channel }) });
      client.disconnect();
    }
  });

  test(`${encoding}: an expired token by a public key is exchanged for a new one`, async (t) => {
    const key = pairs.RS256.privateKey;
    let asked = 0;
    const client = await connected(t, gateway.url, {
      encoding,
      token: await sign('RS256', key, { exp: seconds(-10) }),
      getToken: () => {
        asked += 1;
        return sign('RS256', key);
      },
    });
    assert.equal(asked, 1);
    client.disconnect();
  });
}

test('tokens of a foreign key, of another algorithm, or signed with the public key end the client for good', async (t) => {
  const foreign = await generateKeyPair('RS256');
  const pem = await exportSPKI(pairs.RS256.publicKey);
  for (const token of [
    await sign('RS256', foreign.privateKey),
    await sign('ES384', pairs.ES384.privateKey),
    await sign('HS256', encode(pem)),
    await sign('HS256', encode(pem.trim())),
  ]) await refused(t, gateway.url, { token }, 3500);
});

/** A server of a key set that does what a test says: it answers with keys, or as `does` has it. */
async function keyServer(t, keys) {
  const server = createServer((request, response) => {
    server.asked += 1;
    if (server.does) server.does(request, response);
    else response.setHeader('Content-Type', 'application/json').end(JSON.stringify({ keys: server.keys }));
  });
  Object.assign(server, { keys, asked: 0, does: null });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  server.url = `http://127.0.0.1:${server.address().port}/keys.json`;
  return server;
}

const jwk = async (alg, kid, pair) => ({ ...(await exportJWK(pair.publicKey)), kid, alg, use: 'sig' });

async function withKeys(t, server, reactor) {
  const node = await Gateway.start({
    client: { allow_anonymous_connect_without_token: false, token: { jwks_public_endpoint: server.url } },
    args: ['--reactor', reactor],
  });
  t.after(() => node.kill());
  return node;
}

for (const reactor of ['uring', 'epoll']) {
  test(`${reactor}: keys are fetched, and a rotated one is asked for`, async (t) => {
    const set = await Promise.all(Object.entries(pairs).map(([alg, pair]) => jwk(alg, `key-${alg}`, pair)));
    const server = await keyServer(t, [{ kty: 'oct', k: 'c2VjcmV0', kid: 'key-oct' }, ...set]);
    const node = await withKeys(t, server, reactor);
    const signed = (alg, kid = `key-${alg}`) => sign(alg, pairs[alg].privateKey, {}, { kid });
    for (const alg of Object.keys(pairs)) (await connected(t, node.url, { token: await signed(alg) })).disconnect();
    assert.equal(server.asked, 1);
    await refused(t, node.url, { token: await signed('ES256', 'key-ES384') }, 3500);
    await refused(t, node.url, { token: await sign('HS256', encode('secret'), {}, { kid: 'key-oct' }) }, 3500);

    // The endpoint has a new key; clients bring tokens by it, and those by the old key go on.
    const fresh = await generateKeyPair('ES256', { extractable: true });
    server.keys = [...set, await jwk('ES256', 'fresh', fresh)];
    const token = await sign('ES256', fresh.privateKey, {}, { kid: 'fresh' });
    const [client] = await Promise.all([connected(t, node.url, { token }), connected(t, node.url, { token: await signed('RS256') })]);
    assert.equal(client.state, 'connected');
    assert.equal(server.asked, 2);
    // Behind an endpoint that fails the known keys stay good, and unknown ones are no reason to leave for good.
    server.does = (request, response) => response.writeHead(500).end();
    (await connected(t, node.url, { token })).disconnect();
    const unknown = await RawClient.open(t, node.url);
    const reply = await unknown.call({ connect: { token: await sign('ES256', fresh.privateKey, {}, { kid: 'later' }) } });
    assert.deepEqual(reply.error, { code: 100, message: 'internal server error', temporary: true });
    assert.ok(await node.metric('ringway_key_fetches_total', { result: 'ok' }) >= 2);
  });
}

test('a client waits while the endpoint is slow, and comes back while it fails', async (t) => {
  const answers = [];
  const server = await keyServer(t, [await jwk('EdDSA', 'k', pairs.EdDSA)]);
  server.does = (request, response) => answers.push(response);
  const node = await withKeys(t, server, 'auto');
  const token = await sign('EdDSA', pairs.EdDSA.privateKey, {}, { kid: 'k' });
  const client = sdk(node.url, { token });
  t.after(() => client.disconnect());
  const ready = next(client, 'connected');
  client.connect();
  await until(() => answers.length > 0, 'the first request');
  assert.equal(client.state, 'connecting');
  // Rubbish first: the client is told to come back, which the SDK does until there are keys.
  answers[0].end('<html>not a key set</html>');
  server.does = null;
  await ready;
  assert.ok(server.asked >= 2);
});
