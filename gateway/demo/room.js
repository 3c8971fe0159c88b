// A room as the SDK sees it; no DOM. The room's channel carries messages {text, name, color} and nothing else, so that its
// offsets count messages. A second channel beside it carries what need not be kept: who is who, and who is typing.

const HISTORY = 50; // messages shown to who just came
const CARDS_MAX = 20; // in larger rooms people are named when they speak
const WINDOW = 256; // publishes of a burst under way
const SLICE = 64; // of them in one frame
const SEEN_MAX = 5000;
const KNOWN_MAX = 1000;

const wait = (millis) => new Promise((resolve) => setTimeout(resolve, millis));

/** Only what this page sends is taken from a message; anyone may publish anything. */
export function readMessage(data) {
  if (typeof data !== 'object' || data === null || typeof data.text !== 'string') return null;
  return { text: data.text.slice(0, 4000), ...readCard(data) };
}

function readCard(data) {
  const name = typeof data.name === 'string' && data.name.trim() ? data.name.trim().slice(0, 24) : 'Someone';
  const color = typeof data.color === 'string' && /^#[0-9a-f]{6}$/i.test(data.color) ? data.color : '#5b6172';
  return { name, color };
}

function readBurst(burst) {
  const valid = burst && typeof burst.id === 'string' && burst.count > 0 && burst.count <= 1e6;
  return valid ? { id: burst.id, count: Math.floor(burst.count) } : null;
}

export class Room {
  /**
   * `on` holds the page's handlers: state(state, text), message(message), fresh() when what is shown is void, people(map),
   * typing(name), recovery(recovery), burst(burst), problem(text).
   */
  constructor({ Centrifuge, url, room, person, on }) {
    this.person = person;
    this.on = on;
    this.people = new Map(); // client id → card or null, of who is here
    this.known = new Map(); // client id → card, of who was ever heard of
    this.me = '';
    this.last = 0; // offset of the newest message seen
    this.seen = new Set();
    this.recovery = null;
    this.burst = null;
    this.offline = false;
    this.client = new Centrifuge(url, { name: 'ringway-demo' });
    this.room = this.client.newSubscription(room, { recoverable: true, positioned: true, joinLeave: true });
    this.cards = this.client.newSubscription(`${room}--cards`);
    this.listen();
  }

  join() {
    this.room.subscribe();
    this.cards.subscribe();
    this.client.connect();
  }

  leave() {
    clearTimeout(this.introducing);
    this.client.disconnect();
  }

  goOffline() {
    this.offline = true;
    this.leftAt = Date.now();
    this.client.disconnect();
  }

  comeBack() {
    this.offline = false;
    this.client.connect();
  }

  /** Resolves when the node has taken the message. */
  say(text) {
    return this.room.publish({ text, ...this.person });
  }

  typing() {
    this.tell({ kind: 'typing', ...this.person });
  }

  /** Milliseconds for a call there and back. */
  async echo() {
    const sent = { at: Math.random() };
    const start = performance.now();
    const { data } = await this.client.rpc('echo', sent);
    const millis = performance.now() - start;
    if (!data || data.at !== sent.at) throw new Error('the answer is not what was sent');
    return millis;
  }

  /** Publishes `count` messages as fast as they are taken; what comes back is counted by every member. */
  async publishBurst(count) {
    const burst = { id: Math.random().toString(36).slice(2), count };
    const flying = new Set();
    for (let sent = 0; sent < count;) {
      this.client.startBatching();
      for (const end = Math.min(sent + SLICE, count); sent < end; sent++) {
        const one = this.publishUntilTaken({ text: `${sent + 1} of ${count}`, burst, ...this.person });
        flying.add(one);
        one.finally(() => flying.delete(one)).catch(() => {});
      }
      this.client.stopBatching();
      while (flying.size > WINDOW) await Promise.race(flying);
    }
    await Promise.all(flying);
  }

  /** A node that is busy says so, and means "later". */
  async publishUntilTaken(data) {
    for (let pause = 50; ; pause *= 2) {
      try {
        return await this.room.publish(data);
      } catch (error) {
        if (!error.temporary || pause > 2000) throw error;
        await wait(pause);
      }
    }
  }

  listen() {
    this.client.on('connecting', ({ code, reason }) => this.on.state('connecting', code === 0 ? 'connecting' : `reconnecting: ${reason}`));
    this.client.on('connected', ({ client }) => {
      this.me = client;
      this.on.state('connected', 'connected');
    });
    this.client.on('disconnected', ({ reason }) => {
      this.people.clear();
      this.on.people(this.people);
      if (this.offline) this.on.state('disconnected', 'offline');
      else this.on.state('failed', `disconnected: ${reason}`);
    });
    this.room.on('subscribed', (ctx) => this.subscribed(ctx));
    this.room.on('unsubscribed', ({ reason }) => this.on.problem(`The room is closed to you: ${reason}`));
    this.room.on('error', ({ error }) => this.on.problem(`The room answers: ${error.message}`));
    this.room.on('publication', (ctx) => this.published(ctx));
    this.room.on('join', ({ info }) => this.joined(info.client));
    this.room.on('leave', ({ info }) => {
      this.people.delete(info.client);
      this.on.people(this.people);
    });
    this.cards.on('subscribed', () => this.introduce());
    this.cards.on('publication', ({ data, info }) => this.carded(data, info));
  }

  async subscribed({ wasRecovering, recovered, hasRecoveredPublications, streamPosition }) {
    const from = this.last;
    const top = this.room.history({ limit: 0 }).then(({ offset }) => offset);
    if (wasRecovering) {
      const away = Date.now() - (this.leftAt ?? Date.now());
      // Until the top is known nobody can say how much is missing; messages that arrive meanwhile are counted by offset.
      this.recovery = { from, top: null, recovered, hasRecoveredPublications, away };
    }
    if (!wasRecovering || !recovered) {
      this.last = streamPosition?.offset ?? 0;
      this.seen.clear();
      if (wasRecovering) this.on.fresh();
    }
    try {
      if (this.recovery) {
        this.recovery.top = await top;
        this.tellRecovery();
      } else {
        await top;
      }
      if (!wasRecovering || !recovered) await this.showHistory();
      await this.meetPeople();
    } catch (error) {
      if (!this.offline) this.on.problem(`The room answers: ${error.message}`);
    }
  }

  async showHistory() {
    const { publications } = await this.room.history({ limit: HISTORY, reverse: true });
    for (const publication of publications.reverse()) this.show(publication, { live: false, recovered: false });
  }

  async meetPeople() {
    const { clients } = await this.room.presence();
    for (const id of this.people.keys()) if (!(id in clients)) this.people.delete(id);
    for (const id of Object.keys(clients)) if (!this.people.has(id)) this.people.set(id, this.known.get(id) ?? null);
    this.people.set(this.me, this.person);
    this.on.people(this.people);
  }

  published(publication) {
    const { recovery } = this;
    const missed = recovery?.recovered && publication.offset > recovery.from &&
      (recovery.top === null || publication.offset <= recovery.top);
    this.last = Math.max(this.last, publication.offset ?? 0);
    this.show(publication, { live: !missed, recovered: Boolean(missed) });
    const burst = readBurst(publication.data?.burst);
    if (burst) this.countBurst(burst);
    if (recovery) this.tellRecovery();
  }

  /** When it was said is known only of what was heard live. */
  show({ data, info, offset, tags }, { live, recovered }) {
    if (offset) {
      if (this.seen.has(offset)) return;
      this.seen.add(offset);
      if (this.seen.size > SEEN_MAX) this.seen.delete(this.seen.values().next().value);
    }
    // What a backend publishes need not be a message of this page.
    const message = readMessage(data) ?? { text: JSON.stringify(data), name: tags?.name ?? 'Backend', color: '#5b6172' };
    if (info) this.knowAs(info.client, message);
    this.on.message({ ...message, offset: offset ?? 0, mine: info?.client === this.me, live, recovered });
  }

  countBurst({ id, count }) {
    if (this.burst?.id !== id) this.burst = { id, count, received: 0, start: performance.now(), rate: 0 };
    const { burst } = this;
    burst.received += 1;
    burst.rate = burst.received / Math.max((performance.now() - burst.start) / 1000, 0.001);
    this.on.burst(burst);
  }

  tellRecovery() {
    const { from, top, recovered, hasRecoveredPublications, away } = this.recovery;
    if (top === null) return;
    // A node that started anew counts from 1 again.
    const missed = top >= from ? top - from : top;
    const arrived = recovered ? Math.min(this.last, top) - from : 0;
    this.on.recovery({ missed, arrived, recovered, hasRecoveredPublications, away, complete: recovered && arrived >= missed });
    if (!recovered || arrived >= missed) this.recovery = null;
  }

  joined(id) {
    if (!this.people.has(id)) this.people.set(id, id === this.me ? this.person : (this.known.get(id) ?? null));
    this.on.people(this.people);
    if (id === this.me || this.people.size > CARDS_MAX) return;
    // One card for all who come within a moment; spread, so that a room does not answer in chorus.
    clearTimeout(this.introducing);
    this.introducing = setTimeout(() => this.introduce(), 50 + Math.random() * 200);
  }

  introduce() {
    this.tell({ kind: 'card', ...this.person });
  }

  /** Nothing depends on these: one that is lost is not sent again. */
  tell(data) {
    if (this.cards.state === 'subscribed') this.cards.publish(data).catch(() => {});
  }

  carded(data, info) {
    if (!info || info.client === this.me || typeof data !== 'object' || data === null) return;
    const card = readCard(data);
    this.knowAs(info.client, card);
    if (data.kind === 'typing') this.on.typing(card.name);
  }

  knowAs(id, { name, color }) {
    if (this.known.get(id)?.name === name) return;
    // A card may come before the list of who is here.
    this.known.set(id, { name, color });
    if (this.known.size > KNOWN_MAX) this.known.delete(this.known.keys().next().value);
    if (!this.people.has(id)) return;
    this.people.set(id, { name, color });
    this.on.people(this.people);
  }
}
