// The demo page as a person uses it: two tabs talk, one goes offline, misses messages and gets them back.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Gateway } from '../sdk/harness/gateway.mjs';
import { DEADLINE } from '../sdk/harness/wait.mjs';
import { launch } from './harness/chromium.mjs';

const shots = process.env.RINGWAY_SCREENSHOTS ?? join(dirname(fileURLToPath(import.meta.url)), '../../../target/screenshots');
let gateway;
let browser;
before(async () => {
  mkdirSync(shots, { recursive: true });
  gateway = await Gateway.start({ dev: true });
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await gateway?.kill();
});

/** A tab of a person of its own; whatever the page complains of fails the test. */
async function tab(t, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1100, height: 760 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE);
  page.complaints = [];
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && page.complaints.push(message.text()));
  page.on('requestfailed', (request) => page.complaints.push(`${request.url()} failed`));
  t.after(async () => {
    assert.deepEqual(page.complaints, []);
    await context.close();
  });
  page.at = (name) => page.locator(`[data-test="${name}"]`);
  page.shot = (name) => page.screenshot({ animations: 'disabled', path: join(shots, `${name}.png`) });
  await page.goto(`http://127.0.0.1:${gateway.internal}/`);
  return page;
}

async function enter(page, name, room) {
  await page.at('name').fill(name);
  await page.at('room').fill(room);
  await page.at('join').click();
  await page.locator('[data-test="state"][data-state="connected"]').waitFor();
}

const say = async (page, text) => {
  await page.at('text').fill(text);
  await page.at('send').click();
};
const sees = (page, text) => page.at('message').filter({ hasText: text }).first().waitFor();
const shows = (page, name, text) => page.waitForFunction(([at, wanted]) => document.querySelector(`[data-test="${at}"]`)?.textContent.trim() === wanted, [name, String(text)]);

test('two tabs talk, see each other, and one catches up', async (t) => {
  const ann = await tab(t);
  await ann.shot('entry');
  await enter(ann, 'Ann', 'tea');
  const bob = await tab(t);
  await enter(bob, 'Bob', 'tea');

  for (const page of [ann, bob]) {
    await shows(page, 'people-count', 2);
    for (const name of ['Ann', 'Bob']) await page.at('person').filter({ hasText: name }).waitFor();
  }
  await say(ann, 'Is the kettle on?');
  await sees(bob, 'Is the kettle on?');
  await say(bob, 'It is. Milk?');
  await sees(ann, 'It is. Milk?');
  await bob.shot('talk');

  await bob.at('offline').click();
  await bob.locator('[data-test="state"][data-state="disconnected"]').waitFor();
  await shows(ann, 'people-count', 1);
  for (let n = 1; n <= 7; n++) {
    await say(ann, `while you were away ${n}`);
    await sees(ann, `while you were away ${n}`);
  }
  assert.equal(await bob.at('message').filter({ hasText: 'while you were away' }).count(), 0);
  await bob.at('offline').click();
  await shows(bob, 'recovered', 7);
  await shows(bob, 'missed', 7);
  await sees(bob, 'while you were away 7');
  const texts = await bob.at('message').locator('p').allTextContents();
  assert.deepEqual(texts, ['Is the kettle on?', 'It is. Milk?', ...Array.from({ length: 7 }, (_, n) => `while you were away ${n + 1}`)]);
  assert.equal(await bob.at('recovery').getAttribute('data-recovered'), 'true');
  await shows(ann, 'people-count', 2);
  await bob.shot('recovered');
  await ann.shot('other');

  await bob.at('echo').click();
  await bob.waitForFunction(() => Number(document.querySelector('[data-test="echo-last"]').textContent) > 0);

  // Markup in a message is text.
  await say(ann, '<img src=x onerror=alert(1)>');
  await sees(bob, '<img src=x onerror=alert(1)>');
  assert.equal(await bob.at('messages').locator('img').count(), 0);

  await bob.at('leave').click();
  await bob.at('entry').waitFor();
  await shows(ann, 'people-count', 1);
});

test('a burst arrives whole', async (t) => {
  const ann = await tab(t);
  await enter(ann, 'Ann', 'burst');
  const bob = await tab(t);
  await enter(bob, 'Bob', 'burst');
  await shows(ann, 'people-count', 2);
  await ann.at('burst-count').selectOption('1000');
  await ann.at('burst-send').click();
  for (const page of [ann, bob]) {
    await page.waitForFunction(() => document.querySelector('[data-test="burst-received"]').textContent.replace(/\D/g, '') === '1000');
  }
  await sees(bob, '1000 of 1000');
  await bob.shot('burst');
});

test('who comes later sees what was said, on a small and dark screen', async (t) => {
  const ann = await tab(t);
  await enter(ann, 'Ann', 'late');
  await say(ann, 'The first word');
  await sees(ann, 'The first word');
  const bob = await tab(t, { viewport: { width: 390, height: 800 }, colorScheme: 'dark' });
  await enter(bob, 'Bob', 'late');
  await sees(bob, 'The first word');
  await bob.shot('phone');
  const wide = await bob.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(wide, 0, 'nothing is wider than the screen');
});

test('the page asks nobody but its host', async (t) => {
  const foreign = [];
  const page = await tab(t);
  page.on('request', (request) => !request.url().startsWith(`http://127.0.0.1:${gateway.internal}/`) && foreign.push(request.url()));
  await page.reload();
  await enter(page, 'Ann', 'alone');
  assert.deepEqual(foreign, []);
});
