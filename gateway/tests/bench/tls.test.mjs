// The load harness over TLS: what it proves over plain sockets it proves here too, and it believes no server it should not.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Gateway } from '../sdk/harness/gateway.mjs';
import { figuresOf, run, verified } from './run.mjs';

const directory = mkdtempSync(join(tmpdir(), 'ringway-bench-tls-'));
const path = (name) => join(directory, name);
for (const name of ['live', 'other']) {
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30', '-subj', `/CN=${name}`,
    '-addext', 'subjectAltName=IP:127.0.0.1', '-addext', 'basicConstraints=critical,CA:FALSE', '-keyout', path(`${name}.key`), '-out', path(`${name}.crt`)], { stdio: 'ignore' });
}
const trusting = ['--tls-ca', path('live.crt')];
const short = ['--members', '10', '--in-flight', '1', '--seconds', '1', '--warm-up', '0.3'];

let gateway;
before(async () => {
  gateway = await Gateway.start({
    dev: true,
    args: ['--debug-echo'],
    rest: { tls: { enabled: true, cert_pem_file: path('live.crt'), key_pem_file: path('live.key') }, limits: { address: { handshakes: 0 } } },
  });
});
after(() => {
  gateway?.kill();
  rmSync(directory, { recursive: true });
});

const at = (url, ...flags) => ['--target', url, '--pid', String(gateway.process.pid), ...flags];
const shaken = (kind) => gateway.metric('ringway_tls_handshakes_total', { result: kind });

for (const version of ['1.2', '1.3']) {
  describe(`TLS ${version}`, () => {
    const tls = [...trusting, '--tls-version', version];

    test('fan-out', async () => {
      const figures = figuresOf(await verified('fanout', ...at(gateway.url, '--members', '200', '--in-flight', '4', '--size', '5000', '--seconds', '1', '--warm-up', '0.3', ...tls)));
      assert.ok(figures.deliveries_per_second > 0);
    });

    test('echo', async () => {
      const echo = gateway.url.replace('/connection/websocket', '/echo');
      const figures = figuresOf(await verified('echo', ...at(echo, '--connections', '100', '--seconds', '1', '--warm-up', '0.3', ...tls)));
      assert.ok(figures.echoes_per_second > 0);
    });

    test('idle connections', async () => {
      const before = await shaken('full');
      await verified('idle', ...at(gateway.url, '--connections', '500', '--seconds', '2', ...tls));
      assert.equal(await shaken('full') - before, 500);
    });

    for (const resumes of [false, true]) {
      test(`storm ${resumes ? 'by ticket' : 'by full handshakes'}`, async () => {
        const before = [await shaken('full'), await shaken('resumed')];
        const flags = ['--members', '200', '--rounds', '2', '--recover', '10', ...tls, ...(resumes ? ['--tls-resume'] : [])];
        const report = await verified('storm', ...at(gateway.url, ...flags));
        assert.equal(figuresOf(report).recovered, 4000);
        // One connection publishes, and stays.
        const expected = resumes ? [201, 400] : [601, 0];
        assert.deepEqual([await shaken('full') - before[0], await shaken('resumed') - before[1]], expected);
        assert.match(report.remarks.join('\n'), new RegExp(`json over TLS \\(${expected[0]} full handshakes, ${expected[1]} resumed\\)`));
      });
    }
  });
}

test('any certificate will do unless one is given', async () => {
  await verified('fanout', ...at(gateway.url, ...short));
});

for (const [what, flags] of [
  ['another certificate', ['--tls-ca', path('other.crt')]],
  ['another name', [...trusting, '--tls-name', 'other.example']],
]) {
  test(`a server of ${what} is not believed`, async () => {
    const { code, output } = await run('fanout', ...at(gateway.url, ...flags, ...short));
    assert.equal(code, 1, output);
    assert.match(output, /TLS: invalid peer certificate/);
  });
}

for (const [what, url, flags, words] of [
  ['a file without certificates', () => gateway.url, ['--tls-ca', path('live.key')], /no certificate/],
  ['TLS for a target without', () => gateway.url.replace('wss', 'ws'), ['--tls-resume'], /wss:/],
]) {
  test(`${what} is the command line's fault`, async () => {
    const { code, output } = await run('fanout', ...at(url(), ...flags, ...short));
    assert.equal(code, 64, output);
    assert.match(output, words);
  });
}
