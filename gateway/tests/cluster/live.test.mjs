// Channels without history over NATS: every node's members get what is published on any node, at most once, in each publisher's order.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { connected, dataFor, dataOf, ENCODINGS, subscribed } from '../sdk/harness/clients.mjs';
import { ALL, Gateway } from '../sdk/harness/gateway.mjs';
import { connectionToken } from '../sdk/harness/token.mjs';
import { next, until } from '../sdk/harness/wait.mjs';
import { NatsServer, SERVERS, withHeaders } from './nats.mjs';

/** Gateways that one server links. */
async function nodes(t, url, count, nats = {}, level = 'info') {
  const started = await Promise.all(Array.from({ length: count }, () => Gateway.start({
    namespaces: { '': ALL, room: ALL, last: { ...ALL, slow: { policy: 'latest' } } },
    rest: { nats: { url, ...nats }, log: { level } },
  })));
  for (const gateway of started) t.after(() => gateway.kill());
  return started;
}

const numbers = (count) => Array.from({ length: count }, (_, n) => n);
const told = (subscription) => subscription.publications.items.map(({ data }) => dataOf(data));

for (const [name, program] of Object.entries(SERVERS)) {
  test(`${name}: three nodes keep each publisher's order, and the members of one node see one`, async (t) => {
    const server = await NatsServer.start(t, program);
    const gateways = await nodes(t, server.url, 3);
    const members = [];
    for (const [node, gateway] of gateways.entries()) {
      for (const encoding of ENCODINGS) {
        const client = await connected(t, gateway.url, { encoding, token: connectionToken(`${node}-${encoding}`) });
        members.push({ client, subscription: await subscribed(client, 'room:one') });
      }
    }
    const each = 100;
    await Promise.all([
      ...members.map(async ({ client }, from) => {
        for (const n of numbers(each)) await client.publish('room:one', dataFor(client, { from, n }));
      }),
      ...gateways.map(async (gateway, node) => {
        for (const n of numbers(each)) await gateway.publish('room:one', { from: `api${node}`, n });
      }),
    ]);
    const all = each * (members.length + gateways.length);
    for (const { subscription } of members) await subscription.publications.count(all);
    for (const { subscription } of members) {
      for (const from of [...members.keys(), 'api0', 'api1', 'api2']) {
        assert.deepEqual(told(subscription).filter((data) => data.from === from).map((data) => data.n), numbers(each), `of ${from}`);
      }
    }
    // Two by two, in both encodings, they are on the same node.
    for (const node of gateways.keys()) {
      const [one, other] = members.slice(2 * node);
      assert.deepEqual(told(one.subscription), told(other.subscription));
    }
    const { info } = members[1].subscription.publications.items.find(({ data }) => dataOf(data).from === 0);
    assert.deepEqual([info.user, info.client], ['0-json', members[0].client.context.client]);
  });

  test(`${name}: what is published after the reply to a subscribe is heard, however new the channel`, async (t) => {
    const server = await NatsServer.start(t, program);
    const [here, there] = await nodes(t, server.url, 2);
    const client = await connected(t, here.url);
    for (const n of numbers(100)) {
      const subscription = await subscribed(client, `new${n}`);
      await there.publish(`new${n}`, { n });
      const [publication] = await subscription.publications.count(1);
      assert.deepEqual(publication.data, { n });
    }
  });

  test(`${name}: any name is one channel, and tags and keys come along`, async (t) => {
    const server = await NatsServer.start(t, program);
    const [here, there] = await nodes(t, server.url, 2);
    const client = await connected(t, here.url);
    const names = ['*', '>', 'a.b', 'a..b.', '.', 'a b', 'rw.core.x', '=2A', '%', 'room:*', 'last:>', 'x'.repeat(255), '\\"\'{}[]()<>,;|^`~!@?/+&='];
    const subscriptions = [];
    for (const channel of names) subscriptions.push(await subscribed(client, channel));
    for (const [n, channel] of names.entries()) {
      await there.publish(channel, { n }, { tags: { a: 'ä "q"\n', b: '' }, key: n % 2 ? `k${n}` : undefined });
    }
    for (const [n, subscription] of subscriptions.entries()) {
      const [publication] = await subscription.publications.count(1);
      assert.deepEqual([publication.data, publication.tags], [{ n }, { a: 'ä "q"\n', b: '' }], names[n]);
    }
    await there.publish('x', { end: true });
    for (const subscription of subscriptions) assert.equal(subscription.publications.items.length, 1);
  });

  test(`${name}: without the server clients stay and publishing fails at once; with it all goes on`, async (t) => {
    const server = await NatsServer.start(t, program);
    const [here, there] = await nodes(t, server.url, 2);
    const clients = [await connected(t, here.url), await connected(t, there.url)];
    const subscriptions = [];
    for (const client of clients) subscriptions.push(await subscribed(client, 'room:trouble'));
    await server.kill();
    for (const gateway of [here, there]) {
      await until(async () => (await gateway.get('/readyz')).status === 503, 'the node not to be ready');
      assert.match(await (await gateway.get('/readyz')).text(), /backplane is not connected/);
      assert.equal(await gateway.metric('ringway_broker_connected'), 0);
      await assert.rejects(gateway.publish('room:trouble', {}), { code: 100 });
    }
    await assert.rejects(clients[0].publish('room:trouble', {}), { code: 100 });
    const late = await subscribed(clients[0], 'room:late');
    await server.run();
    for (const gateway of [here, there]) {
      await until(async () => (await gateway.get('/readyz')).status === 200, 'the node to be ready');
      assert.equal(await gateway.metric('ringway_broker_reconnects_total'), 1);
    }
    await clients[1].publish('room:trouble', { back: 1 });
    await there.publish('room:late', { back: 2 });
    for (const subscription of subscriptions) assert.deepEqual((await subscription.publications.count(1))[0].data, { back: 1 });
    assert.deepEqual((await late.publications.count(1))[0].data, { back: 2 });
    for (const subscription of subscriptions) assert.deepEqual(subscription.events.items.map(({ type }) => type), ['subscribing', 'subscribed']);
  });

  test(`${name}: a server that takes and does not deliver is found`, async (t) => {
    const server = await NatsServer.start(t, program);
    const [gateway] = await nodes(t, server.url, 1);
    server.process.kill('SIGSTOP');
    try {
      await until(async () => (await gateway.get('/readyz')).status === 503, 'the node not to be ready');
      assert.equal(await gateway.metric('ringway_broker_delivers'), 0);
    } finally {
      server.process.kill('SIGCONT');
    }
    await until(async () => (await gateway.get('/readyz')).status === 200, 'the node to be ready');
  });

  test(`${name}: messages that no gateway wrote hurt nobody`, async (t) => {
    const server = await NatsServer.start(t, program);
    const [gateway] = await nodes(t, server.url, 1);
    const subscription = await subscribed(await connected(t, gateway.url), 'room:poison');
    const subject = 'rw.core.room=3Apoison';
    const poison = [
      withHeaders(subject, { 'Rw-Info': '{' }, '{"n":1}'),
      withHeaders(subject, { 'Rw-Tags': '[1]' }, '{"n":2}'),
      withHeaders(subject, { 'Rw-Info': '{"user":7}' }, '{"n":3}'),
      `PUB ${subject} 0\r\n\r\n`,
    ];
    for (const message of poison) await server.tell(message);
    await server.tell(`PUB ${subject} 7\r\n{"n":4}\r\n`);
    const [publication] = await subscription.publications.count(1);
    assert.deepEqual(publication.data, { n: 4 });
    assert.equal(await gateway.metric('ringway_broker_lost_total', { reason: 'malformed' }), poison.length);
    assert.equal(await gateway.metric('ringway_broker_lost_total', { reason: 'not_taken' }), 0);
  });
}

test('servers are reached by TLS and a password, and by nothing less', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'ringway-nats-tls-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const [certificate, key] = ['cert.pem', 'key.pem'].map((file) => join(directory, file));
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30', '-subj', '/CN=localhost',
    '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-addext', 'basicConstraints=critical,CA:FALSE', '-keyout', key, '-out', certificate], { stdio: 'pipe' });
  const config = `tls { cert_file: "${certificate}", key_file: "${key}" }\nauthorization { user: gateway, password: "s3cr3t" }\n`;
  const server = await NatsServer.start(t, SERVERS.current, { config });
  const [here, there] = await nodes(t, `tls://gateway:s3cr3t@127.0.0.1:${server.port}`, 2, { tls: { ca_pem_file: certificate } }, 'debug');
  const subscription = await subscribed(await connected(t, here.url), 'room:safe');
  await there.publish('room:safe', { n: 1 });
  assert.deepEqual((await subscription.publications.count(1))[0].data, { n: 1 });
  assert.doesNotMatch(here.output + there.output, /s3cr3t/);
});
