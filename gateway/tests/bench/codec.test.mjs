// The load harness' own WebSocket codec held against npm `ws` as the server: what it sends must be right by ws's checks,
// and it must understand what ws writes. bench/tests/codec.rs does the same with tungstenite.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { WebSocketServer } from 'ws';
import { binary } from '../sdk/harness/gateway.mjs';
import { within } from '../sdk/harness/wait.mjs';

let server;
let compressed = 0;
let pongs = 0;
let joined = 0;
const wrong = [];
before(async () => {
  const perMessageDeflate = { threshold: 100, zlibDeflateOptions: { level: 6 } };
  server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate });
  await once(server, 'listening');
  const rooms = new Map();
  server.on('connection', (socket, request) => {
    const room = new URL(request.url, 'ws://x').pathname;
    compressed += socket.extensions.includes('permessage-deflate');
    socket.on('error', (error) => {
      if (error.code?.startsWith('WS_ERR')) wrong.push(error.message);
    });
    socket.on('pong', (payload) => {
      assert.equal(payload.toString(), 'are you there');
      pongs += 1;
    });
    socket.on('message', (data, isBinary) => {
      const text = data.toString();
      if (room === '/echo') {
        socket.ping('are you there');
        socket.send(data, { binary: isBinary });
      } else if (text === 'join') {
        joined += 1;
        rooms.set(room, [...(rooms.get(room) ?? []), socket]);
        socket.send('welcome');
      } else {
        for (const member of rooms.get(room)) member.send(`{"to":"${room}","data":${text}}`);
      }
    });
  });
});
after(() => server.close());

async function bench(...flags) {
  const common = ['--seconds', '0.5', '--warm-up', '0.1', '--plain-priority', '--cores', '0'];
  const bench = spawn(binary('ringway-bench', 'RINGWAY_BENCH_BIN'), [...flags, ...common], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [bench.stdout, bench.stderr]) stream.setEncoding('utf8').on('data', (text) => { output += text; });
  const [code] = await within(once(bench, 'exit'), `ringway-bench ${flags[0]}`, 60_000);
  // Verified and valid; verified, but this machine is not quiet.
  assert.ok([0, 3].includes(code), `exit ${code}\n${output}`);
  assert.deepEqual(wrong, []);
}

for (const size of [62, 125, 126, 65_535, 65_536]) {
  for (const kind of [[], ['--binary']]) {
    test(`echo of ${size} B ${kind}`, async () => {
      const before = pongs;
      await bench('echo', '--target', `ws://127.0.0.1:${server.address().port}/echo`, '--connections', '3', '--size', String(size), ...kind);
      assert.ok(pongs > before);
    });
  }
}

for (const size of [62, 1000, 100_000]) {
  test(`compressed echo of ${size} B`, async () => {
    const before = compressed;
    await bench('echo', '--target', `ws://127.0.0.1:${server.address().port}/echo`, '--connections', '3', '--size', String(size), '--deflate');
    assert.equal(compressed - before, 3);
  });
}

test('a room with a protocol of its own', async () => {
  await bench(
    'fanout', '--target', `ws://127.0.0.1:${server.address().port}/room`, '--protocol', 'raw', '--members', '20', '--rate', '200',
    '--hello', 'join', '--replies', '1', '--publish', '{data}', '--match', '"data":{data}}',
  );
  assert.equal(joined, 20);
});
