// TLS as real clients speak it: the official SDK, Node's TLS and OpenSSL's client, on both reactors; and what is not TLS.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectTcp } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { connected, ENCODINGS, dataFor, dataOf, subscribed } from './harness/clients.mjs';
import { ALL, binary, environment, Gateway, HISTORY, tomlFile } from './harness/gateway.mjs';
import { frame, upgrade } from './harness/raw.mjs';
import { Inbox, next, pause, until, within } from './harness/wait.mjs';

const directory = mkdtempSync(join(tmpdir(), 'ringway-tls-'));
const path = (name) => join(directory, name);

/** A self-signed certificate of these names. */
function certificate(name, names, kind = ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256']) {
  const alternatives = names.map((each) => (/^[\d.]+$/.test(each) ? `IP:${each}` : `DNS:${each}`));
  execFileSync('openssl', ['req', '-x509', '-newkey', ...kind, '-nodes', '-days', '30', '-subj', `/CN=${name}`,
    '-addext', `subjectAltName=${alternatives}`, '-keyout', path(`${name}.key`), '-out', path(`${name}.crt`)], { stdio: 'ignore' });
  return { cert_pem_file: path(`${name}.crt`), key_pem_file: path(`${name}.key`) };
}

const first = certificate('first', ['localhost', '127.0.0.1']);
const second = certificate('second', ['second.example', '*.wild.example'], ['rsa:2048']);
const later = certificate('later', ['localhost', '127.0.0.1']);
after(() => rmSync(directory, { recursive: true }));

/** A handshake of Node's own client: its socket. The server need not be one that it trusts. */
async function greeted(gateway, options = {}) {
  const socket = connectTls({ host: '127.0.0.1', port: gateway.port, rejectUnauthorized: false, ...options });
  socket.on('error', () => {});
  socket.tickets = [];
  socket.on('session', (ticket) => socket.tickets.push(ticket));
  await within(Promise.race([once(socket, 'secureConnect'), once(socket, 'close').then(() => assert.fail('closed'))]), 'the TLS handshake');
  return socket;
}

/** What a server that is sent these bytes answers until it closes. */
async function answered(gateway, bytes) {
  const socket = connectTcp(gateway.port, '127.0.0.1');
  const parts = [];
  socket.on('data', (part) => parts.push(part)).on('error', () => {});
  socket.write(bytes);
  await within(once(socket, 'close'), 'the end of the connection');
  return Buffer.concat(parts);
}

/** A connection whose bytes leave one at a time, `drips` milliseconds apart, once that is set. */
class Dripping extends Duplex {
  constructor(port) {
    super();
    this.drips = 0;
    this.tcp = connectTcp({ port, host: '127.0.0.1', noDelay: true }).on('error', () => {});
    this.tcp.on('data', (bytes) => this.push(bytes)).on('close', () => this.push(null));
  }

  _read() {}

  async _write(bytes, _encoding, done) {
    if (!this.drips) return void this.tcp.write(bytes, done);
    for (const byte of bytes) {
      this.tcp.write(Buffer.from([byte]));
      await pause(this.drips);
    }
    done();
  }
}

for (const reactor of ['uring', 'epoll']) {
  describe(reactor, () => {
    let gateway;
    const trusting = { ca: [readFileSync(first.cert_pem_file), readFileSync(later.cert_pem_file)] };
    before(async () => {
      for (const end of ['crt', 'key']) copyFileSync(path(`first.${end}`), path(`live.${end}`));
      gateway = await Gateway.start({
        namespaces: { '': { ...ALL, ...HISTORY } },
        rest: { tls: { enabled: true, cert_pem_file: path('live.crt'), key_pem_file: path('live.key'), certificates: [second] }, limits: { address: { handshakes: 0 } } },
        args: ['--reactor', reactor],
      });
    });
    after(() => gateway?.kill());

    for (const version of ['TLSv1.2', 'TLSv1.3']) {
      for (const encoding of ENCODINGS) {
        test(`the SDK lives on ${version}, ${encoding}`, async (t) => {
          const socket = { ...trusting, minVersion: version, maxVersion: version };
          const client = await connected(t, gateway.url, { encoding, socket });
          const channel = `sdk-${reactor}-${version}-${encoding}`;
          const subscription = await subscribed(client, channel);
          await subscription.publish(dataFor(client, { n: 1 }));
          await gateway.publish(channel, { n: 2, text: 'x'.repeat(300_000) });
          const got = (await subscription.publications.count(2)).map(({ data }) => dataOf(data));
          assert.deepEqual(got.map(({ n }) => n), [1, 2]);
          assert.equal(got[1].text.length, 300_000);
          assert.equal(client.socket()._socket.getProtocol(), version);
          const closed = next(client, 'disconnected');
          client.disconnect();
          await closed;
        });
      }

      test(`a ticket of one shard is good on any, ${version}`, async () => {
        const options = { minVersion: version, maxVersion: version, servername: 'localhost' };
        const one = await greeted(gateway, options);
        // In 1.3 tickets come with the first bytes behind the handshake.
        one.write(upgrade(gateway.port));
        await within(once(one, 'data'), 'an answer');
        await until(() => one.tickets.length > 0, 'a ticket');
        one.destroy();
        for (let n = 0; n < 12; n += 1) {
          const again = await greeted(gateway, { ...options, session: one.tickets[0] });
          assert.ok(again.isSessionReused(), `connection ${n}`);
          again.destroy();
        }
      });
    }

    test('OpenSSL speaks both versions, and none below', () => {
      const speak = (flag) => {
        const { stdout } = spawnSync('openssl', ['s_client', '-connect', `127.0.0.1:${gateway.port}`, flag, '-cipher', 'DEFAULT@SECLEVEL=0'], { input: '', encoding: 'utf8', timeout: 20_000 });
        return /New, (\S+), Cipher is (\S+)/.exec(stdout)?.slice(1);
      };
      assert.equal(speak('-tls1_2')[0], 'TLSv1.2');
      assert.equal(speak('-tls1_3')[0], 'TLSv1.3');
      for (const flag of ['-tls1_1', '-tls1']) assert.equal((speak(flag) ?? ['', '(NONE)'])[1], '(NONE)', flag);
    });

    test('the name that is asked for chooses the certificate', async () => {
      for (const [servername, wanted] of [['localhost', 'first'], ['second.example', 'second'], ['a.wild.example', 'second'], ['unknown.example', 'first']]) {
        const socket = await greeted(gateway, { servername });
        assert.equal(socket.getPeerCertificate().subject.CN, wanted, servername);
        socket.destroy();
      }
    });

    test('new keys in the middle of a connection, asked for by OpenSSL', async () => {
      // "K" asks the server for new keys, too; then the request goes on under them.
      const request = upgrade(gateway.port).toString();
      const { stdout } = spawnSync('sh', ['-c', `{ sleep 0.3; echo K; sleep 0.3; printf '%s' "$REQUEST"; sleep 0.7; } | openssl s_client -connect 127.0.0.1:${gateway.port} -tls1_3 -crlf`],
        { encoding: 'utf8', timeout: 20_000, env: { ...process.env, REQUEST: request.replaceAll('\r\n', '\n') } });
      assert.match(stdout, /101 Switching Protocols/);
    });

    test('plain HTTP is told what is spoken here, in the log, too', async () => {
      const answer = (await answered(gateway, upgrade(gateway.port))).toString();
      assert.match(answer, /^HTTP\/1\.1 400 Bad Request\r\n[^]*wss:\/\//);
      await until(() => /plain HTTP to the port that speaks TLS/.test(gateway.output), 'a line in the log');
    });

    test('what is no TLS gets an alert, and the connection is closed', async () => {
      for (const garbage of [Buffer.alloc(100), Buffer.from('SSH-2.0-OpenSSH\r\n'), Buffer.from([22, 3, 1, 255, 255, 0])]) {
        const answer = await answered(gateway, garbage);
        assert.equal(answer[0], 21, garbage.toString('hex'));
      }
    });

    test('handshakes that never end are ended, and nobody else notices', { timeout: 60_000 }, async (t) => {
      const client = await connected(t, gateway.url, { socket: trusting });
      const subscription = await subscribed(client, `slow-${reactor}`);
      const hello = Buffer.from('16030100c8010000c40303', 'hex');
      const slow = Array.from({ length: 50 }, () => {
        const socket = connectTcp(gateway.port, '127.0.0.1').on('error', () => {});
        socket.write(hello.subarray(0, 3));
        const more = setInterval(() => socket.write(Buffer.from([0])), 1000);
        // By an alert, or a reset where bytes of ours were still on their way.
        return new Promise((closed) => socket.resume().on('close', closed)).finally(() => clearInterval(more));
      });
      const began = Date.now();
      await gateway.publish(`slow-${reactor}`, {});
      await subscription.publications.count(1);
      await within(Promise.all(slow), 'all slow ones to be closed', 30_000);
      assert.ok(Date.now() - began >= 900, 'not at once');
    });

    test('records that come a byte at a time: who is done in time goes on, who is not is closed with 3008', { timeout: 90_000 }, async (t) => {
      const strict = await Gateway.start({
        namespaces: { '': ALL },
        client: { stall_timeout: '2s' },
        rest: { tls: { enabled: true, ...first } },
        args: ['--reactor', reactor],
      });
      t.after(() => strict.kill());
      const client = await connected(t, strict.url, { socket: trusting });
      const subscription = await subscribed(client, 'healthy');
      const wire = new Dripping(strict.port);
      t.after(() => wire.tcp.destroy());
      const socket = connectTls({ socket: wire, rejectUnauthorized: false }).on('error', () => {});
      const heard = new Inbox();
      socket.on('data', (bytes) => heard.push(bytes));
      const said = (text) => heard.wait(() => Buffer.concat(heard.items).includes(text), `${text}`);
      socket.write(upgrade(strict.port));
      await said('101 Switching');
      socket.write(frame('{"id":1,"connect":{}}'));
      await said('"connect"');
      wire.drips = 5;
      socket.write(frame('{"id":2,"ping":{}}'));
      await said('"id":2');
      wire.drips = 100;
      socket.write(frame(JSON.stringify({ id: 3, publish: { channel: 'healthy', data: 'x'.repeat(1000) } })));
      await strict.publish('healthy', {});
      await subscription.publications.count(1);
      // The close frame's code.
      await said(Buffer.from([0x0b, 0xc0]));
      await strict.publish('healthy', {});
      assert.equal((await subscription.publications.count(2)).length, 2);
    });

    test('a thousand handshakes beside a healthy client', { timeout: 120_000 }, async (t) => {
      const client = await connected(t, gateway.url, { socket: trusting });
      const subscription = await subscribed(client, `storm-${reactor}`);
      let left = 1000;
      const greeting = async () => {
        while (left > 0) {
          left -= 1;
          (await greeted(gateway, { servername: 'second.example' })).destroy();
        }
      };
      const storm = Promise.all(Array.from({ length: 50 }, greeting));
      let rounds = 0;
      let isOver = false;
      storm.then(() => { isOver = true; }, () => { isOver = true; });
      while (!isOver) {
        rounds += 1;
        await gateway.publish(`storm-${reactor}`, { n: rounds });
        await within(subscription.publications.count(rounds), 'the round trip', 5000);
      }
      await storm;
      assert.ok(rounds > 3, `${rounds} round trips`);
    });

    test('who is over the limit of its address is reset, before a handshake was worked on', async () => {
      const limited = await Gateway.start({
        rest: { tls: { enabled: true, ...first }, limits: { burst: '1s', address: { handshakes: 1 } } },
        args: ['--reactor', reactor],
      });
      try {
        const outcomes = await Promise.all(Array.from({ length: 20 }, async () => {
          const socket = connectTls({ host: '127.0.0.1', port: limited.port, rejectUnauthorized: false });
          const greeting = once(socket, 'secureConnect').then(() => 'greeted', (error) => error.code);
          return { socket, outcome: await within(greeting, 'an outcome') };
        }));
        const of = (wanted) => outcomes.filter(({ outcome }) => outcome === wanted);
        assert.equal(of('ECONNRESET').length + of('greeted').length, 20);
        assert.ok(of('ECONNRESET').length >= 10, `${of('ECONNRESET').length} of 20`);
        const [{ socket }] = of('greeted');
        socket.write(upgrade(limited.port));
        const [answer] = await within(once(socket, 'data'), 'an answer');
        assert.match(String(answer), /^HTTP\/1.1 101/);
        outcomes.forEach((each) => each.socket.destroy());
      } finally {
        limited.kill();
      }
    });

    test('SIGHUP changes the certificate for those who come, and drops nobody', async (t) => {
      const client = await connected(t, gateway.url, { socket: trusting });
      const subscription = await subscribed(client, `reload-${reactor}`);
      const name = async () => {
        const socket = await greeted(gateway, { servername: 'localhost' });
        const { CN } = socket.getPeerCertificate().subject;
        socket.destroy();
        return CN;
      };
      assert.equal(await name(), 'first');
      writeFileSync(path('live.key'), 'nonsense');
      gateway.process.kill('SIGHUP');
      await until(() => /not reloaded/.test(gateway.output), 'the refusal in the log');
      assert.equal(await name(), 'first');
      gateway.output = gateway.output.replace(/"level":"ERROR"/g, '');
      for (const end of ['crt', 'key']) copyFileSync(path(`later.${end}`), path(`live.${end}`));
      gateway.process.kill('SIGHUP');
      await until(async () => (await name()) === 'later', 'the new certificate');
      await gateway.publish(`reload-${reactor}`, {});
      await subscription.publications.count(1);
      assert.equal(client.state, 'connected');
    });
  });
}

test('files that cannot be used end it with 64 and one line', () => {
  for (const [tls, problem] of [
    [{ tls: { enabled: true } }, 'tls.enabled: true without a certificate'],
    [{ tls: { enabled: true, cert_pem_file: first.cert_pem_file } }, 'tls.key_pem_file: not set'],
    [{ tls: { enabled: true, cert_pem_file: '/nowhere', key_pem_file: first.key_pem_file } }, 'tls.cert_pem_file: /nowhere: cannot be read'],
    [{ tls: { enabled: true, ...first, certificates: [{ ...second, key_pem_file: first.key_pem_file }] } }, 'tls.certificates[0].key_pem_file: '],
  ]) {
    const file = path('bad.toml');
    writeFileSync(file, tomlFile(tls));
    const { status, stderr } = spawnSync(binary(), ['serve', '--config', file], { encoding: 'utf8', env: environment() });
    assert.equal(status, 64, stderr);
    assert.ok(stderr.includes(problem), `${stderr} lacks ${problem}`);
    assert.equal(stderr.trim().split('\n').length, 1);
  }
});
