// The official JavaScript SDK, in both encodings, over sockets that tests can break and pause.
import { Centrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import WebSocket from 'ws';
import { Inbox, next } from './wait.mjs';

export const ENCODINGS = ['json', 'protobuf'];

/**
 * An SDK client, not connected yet. `client.socket()` is its newest WebSocket. Its publications' data are objects in both
 * encodings when read with `dataOf`. `socket` are options of its WebSockets.
 */
export function sdk(url, { encoding = 'json', socket = {}, ...options } = {}) {
  let newest = null;
  class Socket extends WebSocket {
    constructor(address, protocols) {
      super(address, protocols, socket);
      newest = this;
    }
  }
  const Client = encoding === 'json' ? Centrifuge : ProtobufCentrifuge;
  const client = new Client(url, {
    websocket: Socket,
    minReconnectDelay: 20,
    maxReconnectDelay: 200,
    timeout: 20_000,
    ...options,
  });
  client.encoding = encoding;
  client.socket = () => newest;
  return client;
}

/** A connected SDK client, closed when the test ends. */
export async function connected(t, url, options) {
  const client = sdk(url, options);
  t.after(() => client.disconnect());
  const ready = next(client, 'connected');
  client.connect();
  client.context = await ready;
  return client;
}

/** What the SDK of this encoding wants as data. */
export const dataFor = (client, value) => (client.encoding === 'json' ? value : new TextEncoder().encode(JSON.stringify(value)));

/** Data that the SDK gives, as a value. */
export function dataOf(data) {
  if (!(data instanceof Uint8Array)) return data;
  return JSON.parse(new TextDecoder().decode(data));
}

/** A subscription made and answered; its events are in `events`, its publications in `publications`. */
export async function subscribed(client, channel, options) {
  const subscription = watched(client, channel, options);
  const ready = next(subscription, 'subscribed', undefined, `subscribed to ${channel}`);
  subscription.subscribe();
  subscription.context = await ready;
  return subscription;
}

/** A subscription that keeps what it is told, not begun yet. */
export function watched(client, channel, options) {
  const subscription = client.newSubscription(channel, options);
  subscription.events = new Inbox();
  subscription.publications = new Inbox();
  for (const type of ['subscribing', 'subscribed', 'unsubscribed', 'error', 'join', 'leave']) {
    subscription.on(type, (context) => subscription.events.push({ type, ...context }));
  }
  subscription.on('publication', (context) => subscription.publications.push(context));
  return subscription;
}
