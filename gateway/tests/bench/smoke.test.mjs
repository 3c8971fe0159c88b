// The load harness against the real gateway at a small size: every scenario runs and proves that nothing was lost,
// doubled, reordered or corrupted. Its figures say nothing on a machine that does other things too.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { binary, Gateway } from '../sdk/harness/gateway.mjs';
import { within } from '../sdk/harness/wait.mjs';

// Verified and valid; verified, but not worth its figures: this machine is not quiet.
const VERIFIED = [0, 3];

let gateway;
before(async () => {
  gateway = await Gateway.start({ dev: true });
});
after(() => gateway?.kill());

async function bench(...flags) {
  const bench = spawn(binary('ringway-bench', 'RINGWAY_BENCH_BIN'), flags, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [bench.stdout, bench.stderr]) stream.setEncoding('utf8').on('data', (text) => { output += text; });
  const [code] = await within(once(bench, 'exit'), `ringway-bench ${flags[0]}`, 120_000);
  return { code, output };
}

for (const encoding of ['json', 'protobuf']) {
  for (const [what, flags] of [
    ['closed loop', ['--in-flight', '4']],
    ['open loop', ['--rate', '200']],
  ]) {
    test(`fan-out, ${encoding}, ${what}`, async () => {
      const { code, output } = await bench(
        'fanout', '--target', gateway.url, '--pid', String(gateway.process.pid), '--encoding', encoding,
        '--channels', '4', '--members', '200', '--seconds', '1', '--warm-up', '0.5', '--plain-priority', '--cores', '0', ...flags,
      );
      assert.ok(VERIFIED.includes(code), `exit ${code}\n${output}`);
    });
  }
}

test('idle connections', async () => {
  const { code, output } = await bench(
    'idle', '--target', gateway.url, '--pid', String(gateway.process.pid), '--connections', '500', '--seconds', '2', '--plain-priority', '--cores', '0',
  );
  assert.ok(VERIFIED.includes(code), `exit ${code}\n${output}`);
});
