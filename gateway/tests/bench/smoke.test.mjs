// The load harness against the real gateway at a small size: every scenario runs and proves that nothing was lost,
// doubled, reordered or corrupted. Its figures say nothing on a machine that does other things too.
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ALL, Gateway, HISTORY } from '../sdk/harness/gateway.mjs';
import { SECRET } from '../sdk/harness/token.mjs';
import { figuresOf, verified } from './run.mjs';

let gateway;
let directory;
let runs = 0;
before(async () => {
  gateway = await Gateway.start({ dev: true, args: ['--debug-echo'] });
  directory = await mkdtemp(join(tmpdir(), 'ringway-bench-'));
});
after(async () => {
  gateway?.kill();
  await rm(directory, { recursive: true, force: true });
});

// Runs a scenario in channels of its own; its figures by name.
async function bench(...run) {
  runs += 1;
  return figuresOf(await verified(...run));
}

const rooms = (...flags) => [
  '--target', gateway.url, '--pid', String(gateway.process.pid), '--channel-prefix', `bench${runs}-`, ...flags,
];
const short = ['--seconds', '1', '--warm-up', '0.3'];

for (const protocol of ['json', 'protobuf']) {
  const speak = (...flags) => rooms('--protocol', protocol, ...flags);

  for (const load of [['--in-flight', '4'], ['--rate', '200']]) {
    test(`fan-out, ${protocol}, ${load[0]}`, async () => {
      const figures = await bench('fanout', ...speak('--channels', '4', '--members', '200', ...load, ...short));
      assert.ok(figures.deliveries_per_second > 0);
    });
  }

  test(`hot room, ${protocol}`, async () => {
    const figures = await bench('hot-room', ...speak('--members', '500', '--rate', '20', ...short));
    assert.ok(figures.rate_held > 0);
  });

  for (const drop of ['reset', 'close']) {
    test(`storm by ${drop}, ${protocol}`, async () => {
      const figures = await bench('storm', ...speak('--members', '300', '--channels', '3', '--rounds', '2', '--drop', drop));
      assert.ok(figures.all_back > 0);
    });
  }

  test(`storm with recovery, ${protocol}`, async () => {
    const figures = await bench('storm', ...speak('--members', '200', '--rounds', '2', '--recover', '10', '--jitter', '100'));
    assert.deepEqual([figures.recovered, figures.unrecovered], [4000, 0]);
  });

  test(`recovery from several offsets, ${protocol}`, async () => {
    const figures = await bench('recover', ...speak('--members', '200', '--channels', '2', '--missed', '40', '--offsets', '4', '--rounds', '1'));
    // Fifty members each miss 40, 30, 20 and 10.
    assert.deepEqual([figures.recovered, figures.unrecovered], [5000, 0]);
  });

  for (const kind of [[], ['--reconnect']]) {
    test(`churn, ${protocol} ${kind}`, async () => {
      const flags = speak('--members', '100', '--comers', '100', '--joins', '100', ...kind, ...short);
      assert.ok((await bench('churn', ...flags)).joins_per_second > 0);
    });
  }

  for (const reads of ['0', '2000']) {
    test(`slow members that read ${reads} B/s, ${protocol}`, async () => {
      const figures = await bench('slow', ...speak('--members', '100', '--reads', reads, ...short));
      assert.equal(figures.healthy_lost, 0);
    });
  }
}

describe('what is compressed', () => {
  const samples = ['chat', 'ticker'].map((name) => fileURLToPath(new URL(`../../../bench/samples/${name}.jsonl`, import.meta.url)));
  let compressing;
  before(async () => {
    compressing = await Gateway.start({ dev: true, rest: { channel: { without_namespace: { compress: true } } } });
  });
  after(() => compressing?.kill());

  for (const sample of samples) {
    for (const protocol of ['json', 'protobuf']) {
      test(`is proved like all else, and is less: ${sample.split('/').at(-1)}, ${protocol}`, async () => {
        const run = (...flags) => bench('fanout', '--target', compressing.url, '--protocol', protocol, '--channel-prefix', `deflate${runs}-`,
          '--members', '100', '--channels', '2', '--in-flight', '4', '--sample', sample, ...short, ...flags);
        const [plain, deflated] = [await run(), await run('--deflate')];
        assert.ok(deflated.bytes_per_delivery < plain.bytes_per_delivery * 0.95, JSON.stringify([plain, deflated]));
      });
    }
  }

  test('is recovered, too', async () => {
    const figures = await bench('storm', '--target', compressing.url, '--channel-prefix', 'storm-', '--members', '100', '--rounds', '1', '--recover', '10', '--deflate');
    assert.deepEqual([figures.recovered, figures.unrecovered], [1000, 0]);
  });

  test('a server that declines fails the run', async () => {
    await assert.rejects(bench('fanout', ...rooms('--members', '2', '--rate', '10', '--deflate', ...short)), /did not agree to permessage-deflate/);
  });
});

// Where there is one core both threads share it.
const both = ['--cores', `0,${availableParallelism() - 1}`];

for (const load of [['--in-flight', '8'], ['--rate', '200']]) {
  test(`fan-out from two threads, ${load[0]}`, async () => {
    const figures = await bench('fanout', ...rooms('--channels', '3', '--members', '301', ...load, ...short, ...both));
    assert.ok(figures.deliveries_per_second > 0);
  });
}

for (const [algorithm, flags] of [
  ['HS256', ['--token-secret', SECRET]],
  ['ES256', ['--token-key', 'key.pem']],
]) {
  test(`storm with ${algorithm} tokens and recovery beside established clients`, async (t) => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const pem = (key, type) => key.export({ type, format: 'pem' });
    await writeFile(join(directory, 'key.pem'), pem(privateKey, 'pkcs8'));
    const options = { ...ALL, ...HISTORY, history_size: 100 };
    const node = await Gateway.start({
      client: {
        allow_anonymous_connect_without_token: false,
        token: { hmac_secret_key: SECRET, ecdsa_public_key: pem(publicKey, 'spki') },
      },
      namespaces: { '': options },
      // As many from one address as a storm brings.
      rest: { limits: { address: { handshakes: 0 } } },
    });
    t.after(() => node.kill());
    const figures = await bench(
      'storm', '--target', node.url, '--pid', String(node.process.pid), '--members', '500', '--at-once', '500', '--recover', '10',
      '--rounds', '2', '--established', '10', '--rate', '100', ...flags.map((flag) => flag.replace('key.pem', join(directory, 'key.pem'))),
    );
    assert.deepEqual([figures.recovered, figures.unrecovered, figures.retries], [10_000, 0, 0]);
    assert.ok(figures.established_p99 > 0 && figures.established_deliveries > 0);
    assert.equal(await node.metric('ringway_token_checks_deferred_total') > 0, algorithm === 'ES256');
  });
}

test('storm with recovery from two threads', async () => {
  const figures = await bench('storm', ...rooms('--members', '201', '--rounds', '2', '--recover', '10', ...both));
  assert.deepEqual([figures.recovered, figures.unrecovered], [4020, 0]);
});

test('a mix', async () => {
  const definition = join(directory, 'mix.toml');
  await writeFile(definition, `
[[group]]
name = "room"
connections = 200
rate = 50

[[group]]
name = "small"
connections = 100
channels = 10
rate = 100
reconnects = 20

[[group]]
name = "slow"
connections = 10
rate = 20
reads = 1000
`);
  const figures = await bench('mixed', ...rooms('--definition', definition, ...short));
  assert.ok(figures.p99_of_room > 0 && figures.reconnects > 0);
});

for (const load of [[], ['--in-flight', '4', '--binary'], ['--rate', '500']]) {
  test(`echo ${load.join(' ')}`, async () => {
    const target = gateway.url.replace('/connection/websocket', '/echo');
    const figures = await bench('echo', '--target', target, '--connections', '100', ...load, ...short);
    assert.ok(figures.echoes_per_second > 0);
  });
}

test('idle connections', async () => {
  await bench('idle', ...rooms('--connections', '500', '--channels', '50', '--seconds', '2'));
});

test('bare loops', async () => {
  const figures = await bench('limit', '--members', '100', '--in-flight', '4', '--runs', '1', '--run-ms', '50');
  assert.ok(figures.uring_ns > 0 && figures.upgrade_us > 0);
});
