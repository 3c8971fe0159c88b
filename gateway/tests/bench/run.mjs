// One run of the load harness.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { binary } from '../sdk/harness/gateway.mjs';
import { within } from '../sdk/harness/wait.mjs';

/** Runs a scenario, on core 0 unless the flags say otherwise: its exit code, what it said, and its report where there is one. */
export async function run(scenario, ...flags) {
  const directory = await mkdtemp(join(tmpdir(), 'ringway-bench-'));
  try {
    const json = join(directory, 'report.json');
    const cores = flags.includes('--cores') ? [] : ['--cores', '0'];
    const common = ['--plain-priority', ...cores, '--json', json];
    const bench = spawn(binary('ringway-bench', 'RINGWAY_BENCH_BIN'), [scenario, ...flags, ...common], { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [bench.stdout, bench.stderr]) stream.setEncoding('utf8').on('data', (text) => { output += text; });
    const [code] = await within(once(bench, 'exit'), `ringway-bench ${scenario}`, 120_000);
    const text = await readFile(json, 'utf8').catch(() => 'null');
    return { code, output, report: JSON.parse(text) };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** A run that proves that nothing was lost: its report. */
export async function verified(scenario, ...flags) {
  const { code, output, report } = await run(scenario, ...flags);
  // Verified and valid; verified, but not worth its figures: this machine is not quiet.
  assert.ok([0, 3].includes(code), `exit ${code}\n${output}`);
  assert.equal(report.verified, true);
  return report;
}

/** A report's figures by name. */
export const figuresOf = (report) => Object.fromEntries(report.figures.map(({ key, value }) => [key, value]));
