// Waiting for events. A deadline here only ends a test that has failed: it is far beyond what anything takes.

/** Milliseconds until a wait is given up. */
export const DEADLINE = 30_000;

/** What `promise` gives, or an error that says what was waited for. */
export function within(promise, what, millis = DEADLINE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${millis} ms in vain for ${what}`)), millis);
    // What nobody waits for any more must not keep the process; while a test waits, its sockets do.
    timer.unref();
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** The next event `name` for which `accepts` holds. */
export function next(emitter, name, accepts = () => true, what = name) {
  let listener;
  const event = new Promise((resolve) => {
    listener = (context) => accepts(context) && resolve(context);
    emitter.on(name, listener);
  });
  return within(event, `the event ${what}`).finally(() => emitter.removeListener(name, listener));
}

/** Asks `check` again and again until it answers something true: for what tells of itself only when asked. */
export async function until(check, what, millis = DEADLINE) {
  const end = Date.now() + millis;
  for (;;) {
    const found = await check();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited ${millis} ms in vain for ${what}`);
    await pause(20);
  }
}

/** A pause between two looks; never in place of an event. */
export const pause = (millis) => new Promise((resolve) => setTimeout(resolve, millis));

/** What arrives over time: kept in order, and waited for by number or by content. */
export class Inbox {
  constructor() {
    this.items = [];
    this.waiting = new Set();
  }

  push(item) {
    this.items.push(item);
    for (const look of [...this.waiting]) look();
  }

  /** The first item, old or new, that `accepts` takes. */
  find(accepts, what = 'an item') {
    return this.wait(() => this.items.find(accepts), what);
  }

  /** All items, as soon as there are `count`. */
  async count(count, what = `${count} items`) {
    await this.wait(() => this.items.length >= count, () => `${what} (got ${this.items.length})`);
    return this.items;
  }

  wait(check, what) {
    let look;
    const found = new Promise((resolve) => {
      look = () => {
        const result = check();
        if (result) resolve(result);
      };
      this.waiting.add(look);
      look();
    });
    return within(found, typeof what === 'function' ? 'items' : what)
      .catch((error) => {
        throw typeof what === 'function' ? new Error(`waited in vain for ${what()}`) : error;
      })
      .finally(() => this.waiting.delete(look));
  }
}
