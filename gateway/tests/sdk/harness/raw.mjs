// Clients without an SDK: the JSON protocol over a WebSocket, and bare bytes over TCP.
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import WebSocket from 'ws';
import { Inbox, within } from './wait.mjs';

/** A WebSocket that speaks JSON commands. Pings are answered; everything else is for the test. */
export class RawClient {
  static async open(t, url, options = {}) {
    const client = new RawClient();
    client.inbox = new Inbox();
    client.frames = new Inbox();
    client.id = 0;
    client.ws = new WebSocket(url, options.protocols ?? [], { perMessageDeflate: false, ...options });
    t.after(() => client.ws.terminate());
    client.ws.on('error', () => {});
    client.closed = new Promise((resolve) => client.ws.on('close', (code, reason) => resolve({ code, reason: String(reason) })));
    client.ws.on('message', (data) => {
      client.frames.push(String(data));
      for (const line of String(data).split('\n').filter(Boolean)) {
        const reply = JSON.parse(line);
        if (Object.keys(reply).length === 0) client.ws.send('{}');
        else client.inbox.push(reply);
      }
    });
    await within(once(client.ws, 'open'), 'the WebSocket to open');
    return client;
  }

  /** The same, connected. */
  static async connected(t, url, request = {}, options) {
    const client = await RawClient.open(t, url, options);
    client.connection = (await client.call({ connect: request })).connect;
    return client;
  }

  /** Sends a command; its reply, with `error` or a result. */
  call(command) {
    const id = ++this.id;
    this.ws.send(JSON.stringify({ id, ...command }));
    return this.reply(id);
  }

  reply(id) {
    return this.inbox.find((reply) => reply.id === id, `the reply to command ${id}`);
  }

  /** Sends commands in one frame; their replies. */
  batch(commands) {
    const numbered = commands.map((command) => ('send' in command ? command : { id: ++this.id, ...command }));
    this.ws.send(numbered.map((command) => JSON.stringify(command)).join('\n'));
    return Promise.all(numbered.filter((command) => command.id).map((command) => this.reply(command.id)));
  }

  /** Pushes of a channel, of a kind. */
  pushes(kind, channel) {
    return this.inbox.items.filter((reply) => reply.push?.[kind] && (channel === undefined || reply.push.channel === channel)).map((reply) => reply.push[kind]);
  }

  push(kind, accepts = () => true) {
    return this.inbox.find((reply) => reply.push?.[kind] && accepts(reply.push[kind], reply.push), `a push ${kind}`).then((reply) => reply.push[kind]);
  }

  close() {
    return within(this.closed, 'the close frame');
  }
}

/** An upgrade request. */
export const upgrade = (port, { path = '/connection/websocket', headers = [], method = 'GET', version = '13' } = {}) => [
  `${method} ${path} HTTP/1.1`, `Host: 127.0.0.1:${port}`, 'Upgrade: websocket', 'Connection: Upgrade',
  `Sec-WebSocket-Version: ${version}`, `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`, ...headers, '', '',
].join('\r\n');

/** A client's frame. `first` is the first byte (0x81 whole text), `length` lies about the length, `mask` off breaks the rule. */
export function frame(payload, { first = 0x81, mask = true, length } = {}) {
  const body = Buffer.from(payload);
  const size = length ?? BigInt(body.length);
  const head = [first];
  const bit = mask ? 0x80 : 0;
  if (length === undefined && body.length < 126) head.push(bit | body.length);
  else if (length === undefined && body.length < 65_536) head.push(bit | 126, body.length >> 8, body.length & 255);
  else {
    head.push(bit | 127);
    for (let shift = 56n; shift >= 0n; shift -= 8n) head.push(Number((size >> shift) & 255n));
  }
  if (!mask) return Buffer.concat([Buffer.from(head), body]);
  const key = randomBytes(4);
  return Buffer.concat([Buffer.from(head), key, body.map((byte, at) => byte ^ key[at % 4])]);
}

/** Bare bytes. */
export class Bytes {
  static async open(t, port) {
    const client = new Bytes();
    client.socket = connectTcp({ host: '127.0.0.1', port, allowHalfOpen: true });
    t.after(() => client.socket.destroy());
    client.received = Buffer.alloc(0);
    client.waiting = new Set();
    const look = () => client.waiting.forEach((check) => check());
    client.socket.on('data', (bytes) => {
      client.received = Buffer.concat([client.received, bytes]);
      look();
    });
    for (const event of ['end', 'error', 'close']) {
      client.socket.on(event, () => {
        client.over ??= event;
        look();
      });
    }
    await within(once(client.socket, 'connect'), 'the TCP connection');
    return client;
  }

  /** With the WebSocket handshake done. */
  static async upgraded(t, port, options) {
    const client = await Bytes.open(t, port);
    client.write(upgrade(port, options));
    const { status } = await client.response();
    if (status !== 101) throw new Error(`the upgrade was answered ${status}`);
    return client;
  }

  write(bytes) {
    this.socket.write(bytes);
    return this;
  }

  /** What `read` makes of the received bytes, as soon as it makes something. */
  wait(read, what) {
    let check;
    const found = new Promise((resolve, reject) => {
      check = () => {
        const result = read();
        if (result !== undefined) resolve(result);
        else if (this.over) reject(new Error(`the connection is over (${this.over}) before ${what}; received ${JSON.stringify(String(this.received.subarray(0, 300)))}`));
      };
      this.waiting.add(check);
      check();
    });
    return within(found, what).finally(() => this.waiting.delete(check));
  }

  /** The HTTP response's status and headers; what is behind its head stays. */
  response() {
    return this.wait(() => {
      const end = this.received.indexOf('\r\n\r\n');
      if (end < 0) return undefined;
      const [first, ...lines] = String(this.received.subarray(0, end)).split('\r\n');
      this.received = this.received.subarray(end + 4);
      const headers = Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]));
      return { status: Number(first.split(' ')[1]), headers };
    }, 'an HTTP response');
  }

  /** The next frame: its first byte and payload. */
  frame() {
    return this.wait(() => {
      const bytes = this.received;
      if (bytes.length < 2) return undefined;
      const short = bytes[1] & 127;
      const skip = short === 126 ? 4 : short === 127 ? 10 : 2;
      if (bytes.length < skip) return undefined;
      const length = short === 126 ? bytes.readUInt16BE(2) : short === 127 ? Number(bytes.readBigUInt64BE(2)) : short;
      if (bytes.length < skip + length) return undefined;
      this.received = bytes.subarray(skip + length);
      return { first: bytes[0], payload: bytes.subarray(skip, skip + length) };
    }, 'a frame');
  }

  /** The code of the close frame, whatever comes before it. */
  async closeCode() {
    for (;;) {
      const { first, payload } = await this.frame();
      if (first === 0x88) return payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
    }
  }

  /** The end of the connection, orderly or not. */
  end() {
    return within(new Promise((resolve) => {
      const check = () => this.over && resolve(this.over);
      this.waiting.add(check);
      check();
    }), 'the end of the connection');
  }

  reset() {
    this.socket.resetAndDestroy();
  }
}
