// A real NATS server for one test, and the bytes of its protocol for messages that no gateway would send.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePorts } from '../sdk/harness/gateway.mjs';
import { DEADLINE, pause, within } from '../sdk/harness/wait.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..');

/** The servers that are tested: Debian's, and a current one, which a Python package brings. */
export const SERVERS = { debian: '/usr/sbin/nats-server', current: join(root, '.venv/bin/nats-server') };

export class NatsServer {
  /** Starts one and waits until it takes connections. `config` is the text of its configuration. */
  static async start(t, program, { config = '', port } = {}) {
    const server = new NatsServer();
    server.port = port ?? (await freePorts(1))[0];
    server.directory = mkdtempSync(join(tmpdir(), 'ringway-nats-'));
    server.program = program;
    const file = join(server.directory, 'nats.conf');
    writeFileSync(file, `listen: "127.0.0.1:${server.port}"\n${config}`);
    server.arguments = ['-c', file];
    t.after(() => server.end());
    await server.run();
    return server;
  }

  async run() {
    this.output = '';
    this.process = spawn(this.program, this.arguments, { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => { this.output += text; });
    }
    this.exited = once(this.process, 'exit');
    let gone = false;
    this.exited.then(() => { gone = true; });
    const end = Date.now() + DEADLINE;
    while (!this.output.includes('Server is ready')) {
      if (gone || Date.now() > end) throw new Error(`the NATS server does not start:\n${this.output}`);
      await pause(10);
    }
  }

  get url() {
    return `nats://127.0.0.1:${this.port}`;
  }

  /** Dies at once. */
  async kill() {
    this.process.kill('SIGKILL');
    await within(this.exited, 'the NATS server to end');
  }

  async end() {
    if (this.process.exitCode === null && this.process.signalCode === null) await this.kill();
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** Sends protocol lines and waits until the server has read them. */
  async tell(lines) {
    const socket = connect(this.port, '127.0.0.1').setEncoding('utf8');
    let heard = '';
    socket.on('data', (text) => { heard += text; });
    socket.write(`CONNECT {"verbose":false,"headers":true}\r\n${lines}PING\r\n`);
    const end = Date.now() + DEADLINE;
    while (!heard.includes('PONG')) {
      if (Date.now() > end) throw new Error(`NATS answers ${JSON.stringify(heard)}`);
      await pause(10);
    }
    socket.destroy();
  }
}

/** The lines of a message with headers. */
export function withHeaders(subject, headers, payload) {
  const head = `NATS/1.0\r\n${Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`;
  return `HPUB ${subject} ${Buffer.byteLength(head)} ${Buffer.byteLength(head + payload)}\r\n${head}${payload}\r\n`;
}
