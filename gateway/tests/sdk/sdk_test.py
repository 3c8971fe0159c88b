"""The official Python SDK and the Python client of the server API, against the real gateway."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import pathlib
import signal
import socket
import tempfile
import time
import unittest
import urllib.error
import urllib.request

import cent
import centrifuge

ROOT = pathlib.Path(__file__).resolve().parents[3]
SECRET = "a secret for tests"
KEY = "a key for tests"
# Only ends a test that has failed.
DEADLINE = 30

CONFIG = f"""
http_api.key = "{KEY}"
client.allow_anonymous_connect_without_token = true
client.token.hmac_secret_key = "{SECRET}"
client.ping_interval = "1s"
client.pong_timeout = "800ms"
client.expired_close_delay = "1s"
shutdown.delay = "100ms"
shutdown.drain = "500ms"

[[channel.namespaces]]
name = "kept"
history_size = 5000
history_ttl = "10m"
allow_recovery = true
allow_positioning = true
presence = true
join_leave = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_presence_for_client = true
allow_presence_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true

[[channel.namespaces]]
name = "bare"
"""


def sign(claims):
    def part(raw):
        return base64.urlsafe_b64encode(raw).rstrip(b"=")

    body = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (body + b"." + part(hmac.digest(SECRET.encode(), body, hashlib.sha256))).decode()


def token(user, **more):
    return sign({"sub": user, "exp": int(time.time()) + 3600, **more})


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def binary():
    given = os.environ.get("RINGWAY_BIN")
    built = [ROOT / "target" / profile / "ringway" for profile in ("release", "debug")]
    return given or next(str(path) for path in built if path.exists())


def environment():
    """This process's environment without what the gateway would take for its configuration, but for the reactor to test."""
    return {name: value for name, value in os.environ.items() if name == "RINGWAY_REACTOR" or not name.startswith("RINGWAY_")}


class Inbox:
    """What arrives over time, waited for by content."""

    def __init__(self):
        self.items = []
        self.changed = asyncio.Condition()

    async def push(self, item):
        async with self.changed:
            self.items.append(item)
            self.changed.notify_all()

    async def wait(self, check, what):
        async def look():
            async with self.changed:
                await self.changed.wait_for(lambda: check(self.items))

        try:
            await asyncio.wait_for(look(), DEADLINE)
        except asyncio.TimeoutError:
            raise AssertionError(f"waited in vain for {what}; there are {self.items[-3:]}") from None
        return self.items

    async def find(self, accepts, what="an event"):
        items = await self.wait(lambda items: any(map(accepts, items)), what)
        return next(filter(accepts, items))

    async def count(self, count):
        return await self.wait(lambda items: len(items) >= count, f"{count} items")


class Watched(centrifuge.SubscriptionEventHandler, centrifuge.ClientEventHandler):
    """Keeps every event as (name, context), and publications by themselves."""

    def __init__(self):
        self.events = Inbox()
        self.publications = Inbox()

    async def on_publication(self, ctx):
        await self.publications.push(ctx.pub)

    async def event(self, name, after=0):
        index = lambda items: [at for at, (found, _) in enumerate(items) if found == name and at >= after]
        items = await self.events.wait(index, name)
        return items[index(items)[0]][1]


def recorder(name):
    async def record(self, ctx):
        await self.events.push((name, ctx))

    return record


for _name in ("connecting", "connected", "disconnected", "error", "subscribing", "subscribed", "unsubscribed", "join", "leave"):
    setattr(Watched, f"on_{_name}", recorder(_name))


class SdkTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        port, internal = free_ports(2)
        self.url = f"ws://127.0.0.1:{port}/connection/websocket"
        self.internal = f"http://127.0.0.1:{internal}"
        file = pathlib.Path(self.directory.name) / "ringway.toml"
        file.write_text(CONFIG)
        log = open(pathlib.Path(self.directory.name) / "log", "wb")
        self.addCleanup(log.close)
        self.process = await asyncio.create_subprocess_exec(
            binary(), "serve", "--shards", "3", "--address", f"127.0.0.1:{port}",
            "--internal-address", f"127.0.0.1:{internal}", "--config", str(file),
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=environment(),
        )  # fmt: skip
        self.addAsyncCleanup(self.end)
        end = time.monotonic() + DEADLINE
        while not await asyncio.to_thread(self.is_ready):
            self.assertIsNone(self.process.returncode, "the gateway has ended")
            self.assertLess(time.monotonic(), end, "the gateway is not ready")
            await asyncio.sleep(0.02)
        self.api = cent.AsyncClient(f"{self.internal}/api", KEY)
        self.addAsyncCleanup(self.api.close)

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"{self.internal}/readyz", timeout=DEADLINE) as response:
                return response.status == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    async def end(self):
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def connect(self, protobuf=False, **options):
        client = centrifuge.Client(self.url, events=Watched(), use_protobuf=protobuf, proxy=None, min_reconnect_delay=0.02, **options)
        self.addAsyncCleanup(client.disconnect)
        await client.connect()
        client.context = await client.events.event("connected")
        return client

    async def subscribe(self, client, channel, **options):
        subscription = client.new_subscription(channel, events=Watched(), **options)
        await subscription.subscribe()
        subscription.context = await subscription.events.event("subscribed")
        return subscription

    async def in_both(self, check):
        for protobuf in (False, True):
            with self.subTest(protobuf=protobuf):
                await check(protobuf, "protobuf" if protobuf else "json")

    @staticmethod
    def data(protobuf, value):
        return json.dumps(value).encode() if protobuf else value

    @staticmethod
    def value(data):
        return json.loads(data) if isinstance(data, bytes) else data

    async def test_publications_with_info_and_tags(self):
        async def check(protobuf, name):
            client = await self.connect(protobuf, token=token("ann", info={"name": "Ann"}))
            subscription = await self.subscribe(client, f"kept:{name}")
            await self.api.publish(cent.PublishRequest(channel=f"kept:{name}", data={"n": 1}, tags={"a": "b"}))
            await subscription.publish(self.data(protobuf, {"n": 2}))
            first, second = await subscription.events.publications.count(2)
            self.assertEqual([self.value(first.data), self.value(second.data)], [{"n": 1}, {"n": 2}])
            self.assertEqual(first.tags, {"a": "b"})
            self.assertIsNone(first.info)
            self.assertEqual((second.info.user, second.info.client), ("ann", client.context.client))
            self.assertEqual(self.value(second.info.conn_info), {"name": "Ann"})
            self.assertEqual(second.offset, first.offset + 1)

        await self.in_both(check)

    async def test_presence_joins_and_history(self):
        async def check(protobuf, name):
            channel = f"kept:people-{name}"
            ann = await self.connect(protobuf, token=token("ann"))
            watching = await self.subscribe(ann, channel, join_leave=True)
            bob = await self.connect(protobuf, token=token("bob"))
            await self.subscribe(bob, channel)
            is_bob = lambda event: event[0] == "join" and event[1].info.user == "bob"
            await watching.events.events.find(is_bob, "bob's join")
            presence = await watching.presence()
            self.assertEqual(sorted(info.user for info in presence.clients.values()), ["ann", "bob"])
            stats = await watching.presence_stats()
            self.assertEqual((stats.num_clients, stats.num_users), (2, 2))
            await bob.disconnect()
            await watching.events.event("leave")
            for n in range(5):
                await watching.publish(self.data(protobuf, n))
            history = await watching.history(limit=2, reverse=True)
            self.assertEqual([self.value(one.data) for one in history.publications], [4, 3])
            self.assertEqual(history.offset, history.publications[0].offset)
            with self.assertRaises(centrifuge.ReplyError) as refused:
                await watching.history(limit=1, since=centrifuge.StreamPosition(offset=1, epoch="another"))
            self.assertEqual(refused.exception.code, 112)

        await self.in_both(check)

    async def test_recovery_through_many_disconnects(self):
        async def check(protobuf, name):
            channel, user = f"kept:cycles-{name}", f"cycler-{name}"
            client = await self.connect(protobuf, token=token(user))
            subscription = await self.subscribe(client, channel, recoverable=True)
            published, cycles = 0, 15
            for cycle in range(cycles):
                for _ in range(5):
                    published += 1
                    await self.api.publish(cent.PublishRequest(channel=channel, data=published))
                after = len(subscription.events.events.items)
                leave = cent.Disconnect(code=4000, reason="come back")
                await self.api.disconnect(cent.DisconnectRequest(user=user, disconnect=leave))
                for _ in range(5):
                    published += 1
                    await self.api.publish(cent.PublishRequest(channel=channel, data=published))
                context = await subscription.events.event("subscribed", after)
                self.assertTrue(context.was_recovering and context.recovered, f"cycle {cycle}")
            await subscription.events.publications.count(published)
            got = [self.value(one.data) for one in subscription.events.publications.items]
            self.assertEqual(got, list(range(1, published + 1)))

        await self.in_both(check)

    async def test_pings_keep_a_quiet_and_a_busy_connection(self):
        async def check(protobuf, name):
            client = await self.connect(protobuf, max_server_ping_delay=1.0)
            subscription = await self.subscribe(client, f"kept:busy-{name}")
            # This SDK counts nothing but pings as a sign of life.
            end = time.monotonic() + 3.5
            while time.monotonic() < end:
                await subscription.publish(self.data(protobuf, 1))
                await asyncio.sleep(0.05)
            self.assertEqual([event for event, _ in client.events.events.items], ["connecting", "connected"])

        await self.in_both(check)

    async def test_tokens_are_renewed(self):
        async def check(protobuf, name):
            asked = asyncio.Queue()

            async def get_token():
                await asked.put(None)
                return token("ann", exp=int(time.time()) + 2)

            client = await self.connect(protobuf, token=token("ann", exp=int(time.time()) - 5), get_token=get_token)
            for _ in range(3):
                await asyncio.wait_for(asked.get(), DEADLINE)
            self.assertEqual([event for event, _ in client.events.events.items if event == "connected"], ["connected"])

        await self.in_both(check)

    async def test_private_channels_and_permissions(self):
        async def check(protobuf, name):
            client = await self.connect(protobuf, token=token("ann"))
            channel = f"$bare:secret-{name}"
            refused = client.new_subscription("bare:open", events=Watched())
            await refused.subscribe()
            self.assertEqual((await refused.events.event("unsubscribed")).code, 103)

            async def get_token(_channel):
                return sign({"sub": "ann", "channel": channel, "exp": int(time.time()) + 60})

            await self.subscribe(client, channel, get_token=get_token)

        await self.in_both(check)

    async def test_the_server_ends_subscriptions_and_connections(self):
        async def check(protobuf, name):
            user, channel = f"kicked-{name}", f"kept:kicked-{name}"
            client = await self.connect(protobuf, token=token(user))
            subscription = await self.subscribe(client, channel)
            await self.api.unsubscribe(cent.UnsubscribeRequest(user=user, channel=channel))
            self.assertEqual((await subscription.events.event("unsubscribed")).code, 2000)
            await self.api.disconnect(cent.DisconnectRequest(user=user))
            self.assertEqual((await client.events.event("disconnected")).code, 3503)

        await self.in_both(check)

    async def test_a_drain_sends_clients_away_to_come_back(self):
        clients = [await self.connect(protobuf) for protobuf in (False, True)]
        seen = [len(client.events.events.items) for client in clients]
        self.process.send_signal(signal.SIGTERM)
        for client, after in zip(clients, seen):
            self.assertEqual((await client.events.event("connecting", after)).code, 3001)
            await client.disconnect()
        self.assertEqual(await asyncio.wait_for(self.process.wait(), DEADLINE), 0)

    async def test_the_api_client_reads_every_answer(self):
        client = await self.connect(token=token("ann", info={"name": "Ann"}))
        await self.subscribe(client, "kept:api")
        result = await self.api.publish(cent.PublishRequest(channel="kept:api", data={"n": 1}, tags={"a": "b"}))
        self.assertTrue(result.offset and result.epoch)
        sent = await self.api.broadcast(cent.BroadcastRequest(channels=["kept:api", "nowhere:x"], data=2))
        self.assertTrue(sent.responses[0].result.offset)
        self.assertEqual(sent.responses[1].error.code, 102)
        history = await self.api.history(cent.HistoryRequest(channel="kept:api", limit=-1))
        self.assertEqual([one.data for one in history.publications], [{"n": 1}, 2])
        self.assertEqual(history.publications[0].tags, {"a": "b"})
        since = cent.StreamPosition(offset=history.publications[0].offset, epoch=history.epoch)
        rest = await self.api.history(cent.HistoryRequest(channel="kept:api", limit=-1, since=since))
        self.assertEqual([one.data for one in rest.publications], [2])
        presence = await self.api.presence(cent.PresenceRequest(channel="kept:api"))
        self.assertEqual(presence.presence[client.context.client].user, "ann")
        self.assertEqual(presence.presence[client.context.client].conn_info, {"name": "Ann"})
        stats = await self.api.presence_stats(cent.PresenceStatsRequest(channel="kept:api"))
        self.assertEqual((stats.num_clients, stats.num_users), (1, 1))
        channels = await self.api.channels(cent.ChannelsRequest(pattern="kept:*"))
        self.assertEqual(channels.channels["kept:api"].num_clients, 1)
        info = await self.api.info(cent.InfoRequest())
        self.assertEqual((len(info.nodes), info.nodes[0].num_clients), (1, 1))
        await self.api.history_remove(cent.HistoryRemoveRequest(channel="kept:api"))
        self.assertEqual((await self.api.history(cent.HistoryRequest(channel="kept:api", limit=-1))).publications, [])
        batch = await self.api.batch(cent.BatchRequest(requests=[
            cent.PublishRequest(channel="kept:api", data=3), cent.PresenceStatsRequest(channel="kept:api"),
        ]))  # fmt: skip
        self.assertTrue(batch.replies[0].offset)
        self.assertEqual(batch.replies[1].num_clients, 1)
        for request, code in [
            (self.api.publish(cent.PublishRequest(channel="nowhere:x", data=1)), 102),
            (self.api.presence(cent.PresenceRequest(channel="bare:x")), 108),
            (self.api.publish(cent.PublishRequest(channel="", data=1)), 107),
        ]:
            with self.assertRaises(cent.CentApiResponseError) as refused:
                await request
            self.assertEqual(refused.exception.code, code)
        stranger = cent.AsyncClient(f"{self.internal}/api", "wrong")
        self.addAsyncCleanup(stranger.close)
        with self.assertRaises(cent.CentUnauthorizedError):
            await stranger.info(cent.InfoRequest())


if __name__ == "__main__":
    unittest.main()
