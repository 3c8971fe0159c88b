#!/usr/bin/env python3
"""Writes chat.jsonl and ticker.jsonl: what publications of two kinds of rooms look like, a JSON value a line.

The same files each time: the only source of chance is a seed. The talk of the chat is in conversation.txt, a message a line,
none twice; names, prices and companies are made up.
"""
import json
import random
from pathlib import Path

HERE = Path(__file__).parent
START = 1_767_261_600_000  # 2026-01-01 10:00 UTC, in milliseconds
PEOPLE = ["Ana Moreira", "Peter Lindqvist", "Jana Novák", "Clara Weiß", "Gareth Hughes", "Yusuf Demir", "Marie Dubois",
          "Tom O'Brien", "Lea Brandt", "Hiro Tanaka", "Sofia Rossi"]
SYMBOLS = [("NRDC", 412.35), ("HALV", 18.62), ("OSTR", 96.1), ("KELP", 7.045), ("BRIX", 1204.5), ("QUAY", 55.31), ("TARN", 233.8),
           ("FJLL", 140.02), ("MOSS", 29.77), ("VANE", 68.4), ("PLYN", 310.9), ("GRIT", 3.118)]


def identifier(rng, length=26):
    return "".join(rng.choices("0123456789ABCDEFGHJKMNPQRSTVWXYZ", k=length))


def chat(rng):
    """A room of a dozen people: who said what when, now and then in answer to somebody, a mention, a reaction."""
    users = [{"id": identifier(rng, 12), "name": name, "avatar": f"https://cdn.example.com/a/{rng.getrandbits(64):016x}.png"}
             for name in PEOPLE]
    now, earlier = START, []
    for text in (HERE / "conversation.txt").read_text().splitlines():
        now += rng.randint(1_500, 90_000)
        message = {"type": "message", "id": identifier(rng), "room": "office", "user": rng.choice(users), "text": text, "sent_at": now}
        if earlier and rng.random() < 0.15:
            message["reply_to"] = rng.choice(earlier[-8:])
        if rng.random() < 0.06:
            message["mentions"] = [rng.choice(users)["id"]]
        yield message
        earlier.append(message["id"])
        if rng.random() < 0.25:
            now += rng.randint(800, 9_000)
            yield {"type": "reaction", "message": rng.choice(earlier[-5:]), "room": "office", "user": rng.choice(users)["id"],
                   "emoji": rng.choice(["👍", "😂", "❤️", "🎉", "👀"]), "sent_at": now}


def ticker(rng):
    """Quotes of a dozen instruments as they move, and now and then the five best orders of either side."""
    prices, volumes = dict(SYMBOLS), {name: rng.randint(10_000, 900_000) for name, _ in SYMBOLS}
    opening, now = dict(SYMBOLS), START
    for sequence in range(48_211_907, 48_211_907 + 480):
        now += rng.randint(1, 240)
        name = rng.choices([name for name, _ in SYMBOLS], weights=range(len(SYMBOLS), 0, -1))[0]
        digits = 4 if prices[name] < 10 else 2
        tick = 10 ** -digits
        prices[name] = max(tick, prices[name] * (1 + rng.gauss(0, 0.0004)))
        price, spread = prices[name], max(tick, prices[name] * 0.0003)
        if rng.random() < 0.2:
            side = lambda sign: [[round(price + sign * spread * (level + rng.random()), digits), rng.randint(1, 90) * 50] for level in range(5)]
            yield {"type": "book", "seq": sequence, "symbol": name, "bids": side(-1), "asks": side(1), "ts": now}
            continue
        size = rng.randint(1, 40) * 25
        volumes[name] += size
        change = price - opening[name]
        yield {"type": "quote", "seq": sequence, "symbol": name, "bid": round(price - spread / 2, digits), "bid_size": rng.randint(1, 90) * 50,
               "ask": round(price + spread / 2, digits), "ask_size": rng.randint(1, 90) * 50, "last": round(price, digits), "last_size": size,
               "volume": volumes[name], "change": round(change, digits) + 0.0, "change_pct": round(change / opening[name] * 100, 2) + 0.0, "ts": now}


for kind in chat, ticker:
    lines = [json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in kind(random.Random(kind.__name__))]
    (HERE / f"{kind.__name__}.jsonl").write_text("\n".join(lines) + "\n")
