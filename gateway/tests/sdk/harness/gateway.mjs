// A real gateway for one test file: its configuration, its process, its ports, its server API.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DEADLINE, pause, within } from './wait.mjs';
import { SECRET } from './token.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '../../../..');
const KEY = 'a key for tests';
const SHARDS = 3;

/** The gateway's binary: `RINGWAY_BIN`, else what cargo built. */
export function binary(name = 'ringway', variable = 'RINGWAY_BIN') {
  const given = process.env[variable];
  const built = ['release', 'debug'].map((profile) => join(root, 'target', profile, name));
  const found = given ?? built.find(existsSync);
  if (!found) throw new Error(`no ${name}: build it, or name it in ${variable}`);
  return found;
}

/** This process's environment without what the gateway would take for its configuration, but for the reactor to test. */
export function environment() {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => name === 'RINGWAY_REACTOR' || !name.startsWith('RINGWAY_')));
}

/** Ports that nobody has now. */
export async function freePorts(count) {
  const servers = await Promise.all(Array.from({ length: count }, async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    return server;
  }));
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => once(server.close(), 'close')));
  return ports;
}

/** A value in TOML; tables inline, so that a whole configuration is one value a key. */
function toml(value) {
  if (Array.isArray(value)) return `[${value.map(toml).join(', ')}]`;
  if (typeof value === 'object') return `{ ${Object.entries(value).map(([key, inner]) => `${JSON.stringify(key)} = ${toml(inner)}`).join(', ')} }`;
  return JSON.stringify(value);
}

/** The text of a configuration file. */
export const tomlFile = (config) => Object.entries(config).map(([key, value]) => `${JSON.stringify(key)} = ${toml(value)}\n`).join('');

/** What clients may be allowed to do. What is off cannot be allowed, so history and presence bring their own leave. */
export const ALL = {
  allow_subscribe_for_client: true,
  allow_subscribe_for_anonymous: true,
  allow_publish_for_client: true,
  allow_publish_for_anonymous: true,
};
export const HISTORY = {
  history_size: 1000,
  history_ttl: '10m',
  allow_recovery: true,
  allow_positioning: true,
  allow_history_for_client: true,
  allow_history_for_anonymous: true,
};
export const PRESENCE = { presence: true, join_leave: true, allow_presence_for_client: true, allow_presence_for_anonymous: true };

export class Gateway {
  /**
   * Starts a gateway and waits until it is ready. `client` and `rest` are the configuration's tables, `namespaces` the
   * channels' by name ("" without); `args` are more flags, `env` more of the environment. Without a configuration (`dev`)
   * it runs with `--dev`.
   */
  static async start({ client = {}, namespaces = {}, rest = {}, args = [], env = {}, dev = false, ports } = {}) {
    const gateway = new Gateway();
    const [port, internal] = ports ?? (await freePorts(2));
    Object.assign(gateway, { port, internal, key: dev ? 'dev' : KEY, output: '', scheme: rest.tls?.enabled ? 'wss' : 'ws' });
    gateway.directory = mkdtempSync(join(tmpdir(), 'ringway-'));
    const flags = ['serve', '--shards', String(SHARDS), '--address', `127.0.0.1:${port}`, '--internal-address', `127.0.0.1:${internal}`];
    if (dev) {
      flags.push('--dev');
    }
    const { '': without = {}, ...named } = namespaces;
    const config = {
      http_api: { key: gateway.key },
      client: { allow_anonymous_connect_without_token: true, token: { hmac_secret_key: SECRET }, ...client },
      channel: {
        without_namespace: without,
        namespaces: Object.entries(named).map(([name, options]) => ({ name, ...options })),
      },
      ...rest,
    };
    const file = join(gateway.directory, 'ringway.toml');
    writeFileSync(file, dev ? tomlFile(rest) : tomlFile(config));
    flags.push('--config', file);
    gateway.process = spawn(binary(), [...flags, ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: { ...environment(), ...env } });
    for (const stream of [gateway.process.stdout, gateway.process.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => { gateway.output += text; });
    }
    gateway.exited = once(gateway.process, 'exit').then(([code, signal]) => ({ code, signal }));
    await gateway.ready();
    return gateway;
  }

  /** Waits for `/readyz`, which is asked; whether the process still lives is told. */
  async ready() {
    let gone = null;
    this.exited.then((how) => { gone = how; });
    const end = Date.now() + DEADLINE;
    for (;;) {
      if (gone) throw new Error(`the gateway ended (${JSON.stringify(gone)}):\n${this.output}`);
      if ((await this.get('/readyz').catch(() => null))?.status === 200) return;
      if (Date.now() > end) {
        this.process.kill('SIGKILL');
        throw new Error(`the gateway is not ready:\n${this.output}`);
      }
      await pause(20);
    }
  }

  get url() {
    return `${this.scheme}://127.0.0.1:${this.port}/connection/websocket`;
  }

  get(path) {
    return fetch(`http://127.0.0.1:${this.internal}${path}`, { signal: AbortSignal.timeout(DEADLINE) });
  }

  /** A call of the server API: its result, or an error with the API's code. */
  async api(method, params = {}) {
    const response = await fetch(`http://127.0.0.1:${this.internal}/api/${method}`, {
      method: 'POST',
      headers: { 'X-API-Key': this.key, 'Content-Type': 'application/json' },
      body: JSON.stringify(params),
      signal: AbortSignal.timeout(DEADLINE),
    });
    const text = await response.text();
    if (response.status !== 200) throw Object.assign(new Error(`${method}: HTTP ${response.status} ${text}`), { status: response.status });
    const { result, error } = JSON.parse(text);
    if (error) throw Object.assign(new Error(`${method}: ${error.code} ${error.message}`), error);
    return result;
  }

  publish(channel, data, more = {}) {
    return this.api('publish', { channel, data, ...more });
  }

  /** The sum of a metric's samples that have the labels. */
  async metric(name, labels = {}) {
    const text = await (await this.get('/metrics')).text();
    let sum = 0;
    for (const line of text.split('\n')) {
      const [, found, inside, value] = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
      if (found === name && Object.entries(labels).every(([label, wanted]) => inside?.includes(`${label}="${wanted}"`))) sum += Number(value);
    }
    return sum;
  }

  /** Asks it to drain; how it ended. */
  async stop(signal = 'SIGTERM') {
    this.process.kill(signal);
    const how = await within(this.exited, 'the gateway to end', 60_000);
    rmSync(this.directory, { recursive: true, force: true });
    return how;
  }

  /** Ends it at once. For the end of a test file. */
  async kill() {
    if (this.process.exitCode === null && this.process.signalCode === null) this.process.kill('SIGKILL');
    await this.exited;
    rmSync(this.directory, { recursive: true, force: true });
    if (/panicked at|"level":"ERROR"/.test(this.output)) throw new Error(`the gateway's log has errors:\n${this.output}`);
  }
}
