// A key set by https, from Node's server with certificates of an authority of our own: which servers are believed, what
// the log says of those that are not, and how keys change.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import { connected, sdk } from './harness/clients.mjs';
import { Gateway } from './harness/gateway.mjs';
import { RawClient } from './harness/raw.mjs';
import { seconds } from './harness/token.mjs';
import { next, until } from './harness/wait.mjs';

const directory = mkdtempSync(join(tmpdir(), 'ringway-keys-'));
after(() => rmSync(directory, { recursive: true, force: true }));
const path = (name) => join(directory, name);

/** A certificate with these extensions, signed by `issuer` or by itself: what Node's server takes. */
function certificate(name, extensions, issuer) {
  const lines = ['[req]', 'distinguished_name = name', '[name]', '[extensions]', ...extensions];
  writeFileSync(path(`${name}.cnf`), lines.join('\n'));
  const signer = issuer ? ['-CA', path(`${issuer}.crt`), '-CAkey', path(`${issuer}.key`)] : [];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30',
    '-subj', `/CN=${name}`, '-config', path(`${name}.cnf`), '-extensions', 'extensions', ...signer,
    '-keyout', path(`${name}.key`), '-out', path(`${name}.crt`)], { stdio: 'ignore' });
  return { key: readFileSync(path(`${name}.key`)), cert: readFileSync(path(`${name}.crt`)) };
}

const AUTHORITY = ['basicConstraints = critical, CA:TRUE', 'keyUsage = keyCertSign'];
const server = (names) => ['basicConstraints = critical, CA:FALSE', 'extendedKeyUsage = serverAuth', `subjectAltName = ${names}`];

let good;
let bad;
const pairs = {};
before(async () => {
  certificate('authority', AUTHORITY);
  certificate('stranger', AUTHORITY);
  good = certificate('good', server('IP:127.0.0.1'), 'authority');
  bad = {
    'of an unknown authority': [certificate('strange', server('IP:127.0.0.1'), 'stranger'), 'UnknownIssuer'],
    'for another name': [certificate('other', server('DNS:other.example, IP:127.0.0.2'), 'authority'), 'not valid for'],
    'for clients only': [certificate('client', ['basicConstraints = critical, CA:FALSE', 'extendedKeyUsage = clientAuth', 'subjectAltName = IP:127.0.0.1'], 'authority'), 'server authentication'],
    'signed by itself': [certificate('itself', server('IP:127.0.0.1')), 'UnknownIssuer'],
  };
  for (const kid of ['old', 'fresh', 'late']) pairs[kid] = await generateKeyPair('ES256', { extractable: true });
});

const token = (kid) => new SignJWT({ sub: 'ann', exp: seconds(3600) }).setProtectedHeader({ alg: 'ES256', kid }).sign(pairs[kid].privateKey);

/** A server of the keys of these ids. `show` gives it another certificate, also for those who were connected. */
async function keyServer(t, shown, kids) {
  const endpoint = createServer(shown, (request, response) => {
    endpoint.asked += 1;
    const all = endpoint.kids.map(async (kid) => ({ ...(await exportJWK(pairs[kid].publicKey)), kid, alg: 'ES256', use: 'sig' }));
    Promise.all(all).then((keys) => response.setHeader('Content-Type', 'application/json').end(JSON.stringify({ keys })));
  });
  Object.assign(endpoint, { asked: 0, kids });
  endpoint.listen(0, '127.0.0.1');
  await once(endpoint, 'listening');
  t.after(() => {
    endpoint.closeAllConnections();
    endpoint.close();
  });
  endpoint.show = (certificates) => {
    endpoint.setSecureContext(certificates);
    endpoint.closeAllConnections();
  };
  return endpoint;
}

async function gateway(t, endpoint) {
  const node = await Gateway.start({
    client: {
      allow_anonymous_connect_without_token: false,
      token: { jwks_public_endpoint: `https://127.0.0.1:${endpoint.address().port}/keys?password=hidden`, jwks_refresh_interval: '10s' },
    },
    env: { SSL_CERT_FILE: path('authority.crt') },
  });
  t.after(() => node.kill());
  return node;
}

/** What a client with the token is told. */
async function answer(t, node, kid) {
  const client = await RawClient.open(t, node.url);
  return client.call({ connect: { token: await token(kid) } });
}

test('keys come over https, a new one at once, and a server that is not believed any more takes none away', { timeout: 90_000 }, async (t) => {
  const endpoint = await keyServer(t, good, ['old']);
  const node = await gateway(t, endpoint);
  (await connected(t, node.url, { token: await token('old') })).disconnect();
  assert.equal(endpoint.asked, 1);

  // Rotation: the token names a key that the node does not have yet, and waits for it.
  endpoint.kids = ['old', 'fresh'];
  (await connected(t, node.url, { token: await token('fresh') })).disconnect();
  assert.equal(endpoint.asked, 2);

  // Somebody else answers in its place.
  endpoint.kids = ['late'];
  endpoint.show(bad['of an unknown authority'][0]);
  await until(() => /public keys could not be fetched[^\n]*UnknownIssuer/.test(node.output), 'the line in the log');
  assert.equal(endpoint.asked, 2, 'it was asked for nothing');
  for (const kid of ['old', 'fresh']) (await connected(t, node.url, { token: await token(kid) })).disconnect();
  assert.equal((await answer(t, node, 'late')).error?.code, 100);
  assert.ok(await node.metric('ringway_key_fetches_total', { result: 'error' }) >= 1);

  // It is itself again, and has rotated: the old key is gone for good.
  endpoint.show(good);
  endpoint.kids = ['fresh', 'late'];
  const client = sdk(node.url, { token: await token('late') });
  t.after(() => client.disconnect());
  const ready = next(client, 'connected');
  client.connect();
  await ready;
  const gone = sdk(node.url, { token: await token('old') });
  t.after(() => gone.disconnect());
  const refused = next(gone, 'disconnected');
  gone.connect();
  assert.equal((await refused).code, 3500);
  assert.doesNotMatch(node.output, /hidden/);
});

test('a certificate that does not prove who it is gets no key believed, and the log says why', { timeout: 90_000 }, async (t) => {
  for (const [what, [shown, why]] of Object.entries(bad)) {
    const endpoint = await keyServer(t, shown, ['old']);
    const node = await gateway(t, endpoint);
    const line = await until(() => /[^\n]*public keys could not be fetched[^\n]*/.exec(node.output)?.[0], `the line about one ${what}`);
    assert.ok(line.includes(why), `${what}: ${line}`);
    assert.ok(line.includes('127.0.0.1'), line);
    assert.equal((await answer(t, node, 'old')).error?.code, 100, what);
    assert.equal(endpoint.asked, 0, what);
    // Mended, it is believed without a restart.
    const client = sdk(node.url, { token: await token('old') });
    t.after(() => client.disconnect());
    const ready = next(client, 'connected');
    client.connect();
    endpoint.show(good);
    await ready;
    client.disconnect();
  }
});
