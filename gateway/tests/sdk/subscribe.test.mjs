// Subscribing: permissions, names, tokens, limits; and subscriptions that the server makes.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { connected, ENCODINGS, subscribed, watched } from './harness/clients.mjs';
import { ALL, Gateway, HISTORY, PRESENCE } from './harness/gateway.mjs';
import { RawClient } from './harness/raw.mjs';
import { connectionToken, seconds, sign, subscriptionToken } from './harness/token.mjs';
import { Inbox, next, until } from './harness/wait.mjs';

let gateway;
before(async () => {
  gateway = await Gateway.start({
    client: { channel_limit: 8, expired_close_delay: '1s' },
    namespaces: {
      open: { ...ALL },
      kept: { ...ALL, ...HISTORY, ...PRESENCE },
      personal: { allow_user_limited_channels: true },
      members: { allow_subscribe_for_client: true, allow_publish_for_subscriber: true },
      bare: {},
    },
  });
});
after(() => gateway?.kill());

const asUser = (t, user, more) => RawClient.connected(t, gateway.url, { token: connectionToken(user, more) });

test('nothing is allowed where nothing was allowed', async (t) => {
  const client = await asUser(t, 'ann');
  for (const channel of ['room', 'bare:room']) {
    assert.equal((await client.call({ subscribe: { channel } })).error.code, 103);
    assert.equal((await client.call({ publish: { channel, data: 1 } })).error.code, 103);
    assert.equal((await client.call({ presence: { channel } })).error.code, 108);
    assert.equal((await client.call({ presence_stats: { channel } })).error.code, 108);
    assert.equal((await client.call({ history: { channel } })).error.code, 108);
  }
  assert.equal((await client.call({ rpc: { method: 'echo', data: 1 } })).error.code, 104);
});

test('subscribers may publish where only subscribers may, others and anonymous ones not', async (t) => {
  const client = await asUser(t, 'ann');
  assert.equal((await client.call({ publish: { channel: 'members:a', data: 1 } })).error.code, 103);
  assert.ok((await client.call({ subscribe: { channel: 'members:a' } })).subscribe);
  assert.ok((await client.call({ publish: { channel: 'members:a', data: 1 } })).publish);
  const anonymous = await RawClient.connected(t, gateway.url);
  assert.equal((await anonymous.call({ subscribe: { channel: 'members:a' } })).error.code, 103);
});

test('an unknown namespace is 102, a bad name 107', async (t) => {
  const client = await asUser(t, 'ann');
  for (const [channel, code] of [
    ['nowhere:room', 102], [':room', 102], ['a b:c', 102], ['', 107], ['x'.repeat(256), 107], ['open:é', 107], ['open:a\nb', 107],
    ['open:a\u0000', 107],
  ]) {
    for (const command of [{ subscribe: { channel } }, { publish: { channel, data: 1 } }, { history: { channel } }]) {
      assert.equal((await client.call(command)).error?.code, code, JSON.stringify(command));
    }
  }
  assert.ok((await client.call({ subscribe: { channel: `open:${'x'.repeat(250)}` } })).subscribe, '255 bytes are allowed');
});

test('a second subscription to a channel is 105, one over the limit 106', async (t) => {
  const client = await asUser(t, 'ann');
  assert.ok((await client.call({ subscribe: { channel: 'open:0' } })).subscribe);
  assert.equal((await client.call({ subscribe: { channel: 'open:0' } })).error.code, 105);
  for (let n = 1; n < 8; n++) assert.ok((await client.call({ subscribe: { channel: `open:${n}` } })).subscribe);
  assert.equal((await client.call({ subscribe: { channel: 'open:8' } })).error.code, 106);
  assert.deepEqual((await client.call({ unsubscribe: { channel: 'open:0' } })).unsubscribe, {});
  assert.ok((await client.call({ subscribe: { channel: 'open:8' } })).subscribe);
  assert.deepEqual((await client.call({ unsubscribe: { channel: 'open:never' } })).unsubscribe, {}, 'never an error');
});

test('a user-limited channel is for the users it names', async (t) => {
  const [ann, bob, anonymous] = [await asUser(t, 'ann'), await asUser(t, 'bob'), await RawClient.connected(t, gateway.url)];
  for (const [client, channel, allowed] of [
    [ann, 'personal:dialog#ann,cat', true], [bob, 'personal:dialog#ann,cat', false], [bob, 'personal:all#a#bob', true],
    [anonymous, 'personal:dialog#', false], [ann, 'open:dialog#ann', false],
  ]) {
    const reply = await client.call({ subscribe: { channel } });
    assert.equal(reply.error?.code, allowed ? undefined : 103, channel);
  }
});

test('a subscription token says whether its own subscription is present and announced', async (t) => {
  const channel = 'kept:overridden';
  const join = async (user, more) => {
    const client = await asUser(t, user);
    assert.ok((await client.call({ subscribe: { channel, join_leave: true, token: subscriptionToken(user, channel, more) } })).subscribe);
    return client;
  };
  const watcher = await join('ann');
  await join('bob', { override: { presence: { value: false }, join_leave: { value: false } } });
  await join('cat', { override: { presence: { value: false } } });
  await join('dan', { override: { join_leave: { value: false } } });
  await join('eve');
  for (const user of ['ann', 'cat', 'eve']) await watcher.push('join', ({ info }) => info.user === user);
  const present = async () => Object.values((await watcher.call({ presence: { channel } })).presence.presence).map(({ user }) => user).sort();
  await until(async () => String(await present()) === 'ann,dan,eve', 'those who are present');
  assert.deepEqual(watcher.pushes('join', channel).map(({ info }) => info.user).sort(), ['ann', 'cat', 'eve']);
});

test('a subscription token announces where the namespace does not', async (t) => {
  const channel = 'open:overridden';
  const client = await asUser(t, 'fay');
  const override = { join_leave: { value: true }, force_push_join_leave: { value: true } };
  assert.ok((await client.call({ subscribe: { channel, token: subscriptionToken('fay', channel, { override }) } })).subscribe);
  await client.push('join', ({ info }, push) => push.channel === channel && info.user === 'fay');
});

for (const encoding of ENCODINGS) {
  test(`${encoding}: a private channel asks for a token`, async (t) => {
    const client = await connected(t, gateway.url, { encoding, token: connectionToken('ann') });
    const refused = watched(client, '$kept:secret');
    const gone = next(refused, 'unsubscribed');
    refused.subscribe();
    assert.equal((await gone).code, 103);
    client.removeSubscription(refused);
    const subscription = await subscribed(client, '$kept:secret', { token: subscriptionToken('ann', '$kept:secret', { info: { role: 'x' } }) });
    const { clients } = await subscription.presence();
    assert.deepEqual(Object.keys(clients), [client.context.client]);
  });

  test(`${encoding}: an expired subscription token is exchanged for a new one`, async (t) => {
    const client = await connected(t, gateway.url, { encoding, token: connectionToken('ann') });
    const channel = `$open:renewed-${encoding}`;
    await subscribed(client, channel, {
      token: subscriptionToken('ann', channel, { exp: seconds(-5) }),
      getToken: async () => subscriptionToken('ann', channel),
      minResubscribeDelay: 10,
      maxResubscribeDelay: 50,
    });
  });

  test(`${encoding}: a subscription about to expire is refreshed and stays`, async (t) => {
    const client = await connected(t, gateway.url, { encoding, token: connectionToken('ann') });
    const channel = `$open:refreshed-${encoding}`;
    let asked = 0;
    let told;
    const twice = new Promise((resolve) => { told = resolve; });
    const subscription = await subscribed(client, channel, {
      getToken: async () => {
        asked += 1;
        if (asked === 3) told();
        return subscriptionToken('ann', channel, { exp: seconds(2) });
      },
    });
    await twice;
    assert.deepEqual(subscription.events.items.map((event) => event.type), ['subscribing', 'subscribed']);
  });
}

test('a subscription that ran out ends with 2501', async (t) => {
  const client = await asUser(t, 'ann');
  const channel = '$open:short';
  const { subscribe } = await client.call({ subscribe: { channel, token: subscriptionToken('ann', channel, { exp: seconds(2) }) } });
  assert.equal(subscribe.expires, true);
  assert.ok(subscribe.ttl >= 1);
  assert.deepEqual(await client.push('unsubscribe'), { code: 2501, reason: 'subscription expired' });
  assert.ok((await client.call({ subscribe: { channel, token: subscriptionToken('ann', channel) } })).subscribe);
});

test('a subscription token for somebody else\'s eyes is 3500, a forged one 103', async (t) => {
  for (const [user, channel] of [['ann', '$open:other'], ['bob', '$open:mine'], ['', '$open:mine']]) {
    const client = await asUser(t, 'ann');
    client.call({ subscribe: { channel: '$open:mine', token: subscriptionToken(user, channel) } }).catch(() => {});
    assert.equal((await client.close()).code, 3500);
  }
  const client = await asUser(t, 'ann');
  const token = sign({ sub: 'ann', channel: '$open:mine' }, 'another secret');
  assert.equal((await client.call({ subscribe: { channel: '$open:mine', token } })).error.code, 103);
  const tokenWithClient = subscriptionToken('ann', '$open:mine', { client: client.connection.client });
  assert.ok((await client.call({ subscribe: { channel: '$open:mine', token: tokenWithClient } })).subscribe);
});

test('sub_refresh: an expired token is 109, without a subscription 103', async (t) => {
  const client = await asUser(t, 'ann');
  const channel = '$open:again';
  const refresh = (claims) => client.call({ sub_refresh: { channel, token: subscriptionToken('ann', channel, claims) } });
  assert.equal((await refresh()).error.code, 103);
  await client.call({ subscribe: { channel, token: subscriptionToken('ann', channel) } });
  assert.equal((await refresh({ exp: seconds(-5) })).error.code, 109);
  const { sub_refresh: result } = await refresh();
  assert.equal(result.expires, true);
  assert.ok(result.ttl > 3000);
});

for (const encoding of ENCODINGS) {
  test(`${encoding}: subscriptions of the token are there from the start, and recover`, async (t) => {
    const channel = `kept:server-${encoding}`;
    const subs = { [channel]: { data: { welcome: true }, info: { seat: 1 } }, 'open:plain': {} };
    const client = await connected(t, gateway.url, { encoding, token: sign({ sub: 'ann', subs }) });
    const publications = new Inbox();
    client.on('publication', (context) => publications.push(context));
    await gateway.publish(channel, { n: 1 });
    await publications.count(1);
    const back = next(client, 'subscribed', (context) => context.channel === channel);
    const away = next(client, 'connecting');
    client.socket().terminate();
    await away;
    for (const n of [2, 3, 4]) await gateway.publish(channel, { n });
    const again = await back;
    assert.deepEqual([again.wasRecovering, again.recovered], [true, true]);
    await publications.count(4);
    assert.deepEqual(publications.items.map((publication) => publication.offset), [1, 2, 3, 4].map((n) => n + publications.items[0].offset - 1));
    assert.ok(publications.items.every((publication) => publication.channel === channel));
  });
}

test('channels of the token are subscribed to; unknown namespaces fail the connect; too many are 3505', async (t) => {
  const client = await asUser(t, 'ann', { channels: ['open:a', 'kept:b'] });
  assert.deepEqual(Object.keys(client.connection.subs).sort(), ['kept:b', 'open:a']);
  assert.equal((await client.call({ subscribe: { channel: 'open:a' } })).error.code, 105);
  const lost = await RawClient.open(t, gateway.url);
  assert.equal((await lost.call({ connect: { token: connectionToken('ann', { channels: ['nowhere:a'] }) } })).error.code, 102);
  const greedy = await RawClient.open(t, gateway.url);
  greedy.call({ connect: { token: connectionToken('ann', { channels: Array.from({ length: 9 }, (_, n) => `open:${n}`) }) } }).catch(() => {});
  assert.equal((await greedy.close()).code, 3505);
});

test('what is asked for of experimental features is refused with 108', async (t) => {
  const client = await asUser(t, 'ann');
  assert.equal((await client.call({ subscribe: { channel: 'open:a', type: 1 } })).error.code, 108);
  assert.equal((await client.call({ subscribe: { channel: 'open:a', tf: { cmp: 'eq', key: 'a', val: 'b' } } })).error.code, 108);
  assert.equal((await client.call({ publish: { channel: 'open:a', data: 1, key: 'k' } })).error.code, 108);
  assert.equal((await client.call({ sub_refresh: { channel: 'open:a', type: 1 } })).error.code, 108);
  const { subscribe } = await client.call({ subscribe: { channel: 'open:a', flag: 1, delta: 'fossil' } });
  assert.equal(subscribe.delta, undefined);
});
