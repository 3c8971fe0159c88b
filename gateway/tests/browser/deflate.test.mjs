// permessage-deflate as a browser does it: it offers the extension by itself, inflates by itself, and shows pages nothing of
// it. So what was agreed is read from the handshake, and what was on the wire from the gateway's counters.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ALL, Gateway, HISTORY } from '../sdk/harness/gateway.mjs';
import { DEADLINE, Inbox } from '../sdk/harness/wait.mjs';
import { launch } from './harness/chromium.mjs';

const SDK = fileURLToPath(new URL('../node_modules/centrifuge/dist/centrifuge.js', import.meta.url));
const AGREED = 'permessage-deflate; server_no_context_takeover; client_no_context_takeover';
const SENTENCE = 'Die Würde des Menschen ist unantastbar; “and so on” 🙂 ';

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

/** A gateway whose namespace `room` compresses, or does not. */
async function start(t, compress) {
  const gateway = await Gateway.start({ client: { allowed_origins: ['*'] }, namespaces: { room: { ...ALL, ...HISTORY, compress } } });
  t.after(() => gateway.kill());
  return gateway;
}

/** A page with the SDK, subscribed to `channel`; the handshakes that its browser made are in `page.handshakes`. */
async function subscribedPage(t, gateway, channel) {
  const page = await browser.newPage();
  t.after(() => page.close());
  page.setDefaultTimeout(DEADLINE);
  page.handshakes = new Inbox();
  const devtools = await page.context().newCDPSession(page);
  await devtools.send('Network.enable');
  devtools.on('Network.webSocketHandshakeResponseReceived', ({ response }) => page.handshakes.push(response));
  await page.goto(`http://127.0.0.1:${gateway.internal}/livez`);
  await page.addScriptTag({ path: SDK });
  await page.evaluate(([url, name]) => new Promise((resolve, reject) => {
    window.got = [];
    const client = new Centrifuge(url);
    client.on('error', ({ error }) => reject(new Error(JSON.stringify(error))));
    window.subscription = client.newSubscription(name, { recoverable: true });
    window.subscription.on('publication', ({ data }) => window.got.push(data.text));
    window.subscription.on('subscribed', resolve);
    window.subscription.subscribe();
    client.connect();
  }), [gateway.url, channel]);
  return page;
}

const header = (headers, wanted) => Object.entries(headers).find(([name]) => name.toLowerCase() === wanted)?.[1];

/** Publishes each and waits until the page has them all; what it got. */
async function passedThrough(page, gateway, channel, texts) {
  for (const text of texts) await gateway.publish(channel, { text });
  await page.waitForFunction((count) => window.got.length >= count, texts.length);
  return page.evaluate(() => window.got);
}

const publications = (gateway, result) => gateway.metric('ringway_deflate_messages_total', { kind: 'publication', result });
const SMALL = ['', 'hello', 'ü🙂'];
const LARGE = [5, 50, 900].map((times) => SENTENCE.repeat(times));

test('a browser agrees to it and gets what is compressed, and what is too small for it, intact', async (t) => {
  const gateway = await start(t, true);
  const page = await subscribedPage(t, gateway, 'room:a');
  const { headers, requestHeaders } = await page.handshakes.find(() => true, 'the handshake');
  assert.match(header(requestHeaders, 'sec-websocket-extensions'), /permessage-deflate/);
  assert.equal(header(headers, 'sec-websocket-extensions'), AGREED);

  const before = await gateway.metric('ringway_bytes_sent_total');
  const texts = [SMALL[0], LARGE[0], SMALL[1], LARGE[1], LARGE[2], SMALL[2]];
  assert.deepEqual(await passedThrough(page, gateway, 'room:a', texts), texts);
  // It was the large ones that were compressed, and nothing else went out: their bytes, and some hundred of the small ones'.
  assert.deepEqual([await publications(gateway, 'deflated'), await publications(gateway, 'left_plain')], [LARGE.length, 0]);
  const compressed = await gateway.metric('ringway_deflate_bytes_total', { kind: 'publication', side: 'out' });
  const sent = (await gateway.metric('ringway_bytes_sent_total')) - before;
  assert.ok(sent > compressed && sent < compressed + 1000, `${sent} B sent, ${compressed} B compressed`);
  const plain = LARGE.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  assert.ok(sent < plain / 10, `${sent} B for ${plain} B of text`);

  // The other way: the browser compresses what the page publishes, and gets it back.
  await page.evaluate((text) => window.subscription.publish({ text }), LARGE[1]);
  await page.waitForFunction((count) => window.got.length === count, texts.length + 1);
  assert.equal(await page.evaluate(() => window.got.at(-1)), LARGE[1]);
  const [inside, outside] = await Promise.all(['in', 'out'].map((side) => gateway.metric('ringway_inflate_bytes_total', { side })));
  assert.ok(outside > Buffer.byteLength(LARGE[1]) && inside < outside / 4, `${inside} B inflated to ${outside} B`);
});

test('where no namespace compresses, the browser is not answered and gets everything plain', async (t) => {
  const gateway = await start(t, false);
  const page = await subscribedPage(t, gateway, 'room:a');
  const { headers, requestHeaders } = await page.handshakes.find(() => true, 'the handshake');
  assert.match(header(requestHeaders, 'sec-websocket-extensions'), /permessage-deflate/);
  assert.equal(header(headers, 'sec-websocket-extensions'), undefined);
  const before = await gateway.metric('ringway_bytes_sent_total');
  const texts = [...SMALL, ...LARGE];
  assert.deepEqual(await passedThrough(page, gateway, 'room:a', texts), texts);
  const sent = (await gateway.metric('ringway_bytes_sent_total')) - before;
  const plain = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  assert.ok(sent > plain, `${sent} B for ${plain} B of text`);
  assert.equal(await publications(gateway, 'deflated'), 0);
});
