// The README's client and its call of the server API do what the README says.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Gateway } from './harness/gateway.mjs';
import { Inbox } from './harness/wait.mjs';

const tests = join(dirname(fileURLToPath(import.meta.url)), '..');

test('the README\'s client and backend meet', async (t) => {
  const gateway = await Gateway.start({ dev: true });
  t.after(() => gateway.kill());
  const readme = readFileSync(join(tests, '../../README.md'), 'utf8');
  const [, client] = /```js\n([^`]*)```/.exec(readme);
  const [, backend] = /```sh\n(curl [^`]*)```/.exec(readme);
  // Node before 22 has no WebSocket of its own, as the README says.
  const code = `import WebSocket from 'ws'; globalThis.WebSocket = WebSocket;\n${client.replace('127.0.0.1:8000', `127.0.0.1:${gateway.port}`)}`;
  const lines = new Inbox();
  const process = spawn('node', ['--input-type=module', '--eval', code], { cwd: tests, stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => process.kill());
  process.stdout.setEncoding('utf8').on('data', (text) => text.split('\n').filter(Boolean).forEach((line) => lines.push(line)));
  await lines.find((line) => line.startsWith('connected as '), 'the connection');
  await lines.find((line) => line.endsWith(' came'), 'the join');
  await lines.find((line) => line.includes("text: 'hello'"), 'its own publication');
  const [, header, body] = /-H '([^']*)' -d '([^']*)'/.exec(backend);
  const [name, key] = header.split(': ');
  const response = await fetch(`http://127.0.0.1:${gateway.internal}/api/publish`, { method: 'POST', headers: { [name]: key }, body });
  assert.equal(response.status, 200);
  await lines.find((line) => line.startsWith('2 backend ') && line.includes("text: 'from the backend'"), 'the backend\'s publication');
});
