// What is on the page. Text goes in as text, never as markup.

const SHOWN_MAX = 200; // messages kept on the page
const NEAR = 60; // pixels from the end that still count as being there

export const $ = (id) => document.getElementById(id);

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function face({ name, color }) {
  const made = element('span', 'face', [...name][0].toUpperCase());
  made.style.setProperty('--who', color);
  made.setAttribute('aria-hidden', 'true');
  return made;
}

export function setState(state, text) {
  $('state').dataset.state = state;
  $('state').textContent = text;
  const connected = state === 'connected';
  for (const control of document.querySelectorAll('#say :is(input, button), #burst :is(select, button), #echo')) {
    control.disabled = !connected;
  }
}

export function setProblem(text) {
  $('problem').hidden = !text;
  $('problem').textContent = text ?? '';
}

/** The list of messages. Messages that come fast are drawn together, once a frame. */
export class Messages {
  constructor() {
    this.waiting = [];
    this.list = $('messages');
    this.scroll = $('scroll');
    this.scroll.addEventListener('scroll', () => this.isAtEnd() && ($('newer').hidden = true));
    $('newer').addEventListener('click', () => this.toEnd());
  }

  clear() {
    this.waiting = [];
    this.list.replaceChildren();
    $('empty').hidden = false;
  }

  add(message) {
    this.waiting.push({ ...message, at: message.live ? clock.format(new Date()) : '' });
    if (typist === message.name) clearTyping();
    if (this.waiting.length > SHOWN_MAX) this.waiting.shift();
    // Frames stop in a tab that nobody sees; a timer does not.
    if (this.waiting.length === 1) (document.hidden ? setTimeout : requestAnimationFrame)(() => this.draw());
  }

  draw() {
    if (this.waiting.length === 0) return;
    const stay = !this.isAtEnd();
    this.list.setAttribute('aria-busy', String(this.waiting.length > 5));
    for (const message of this.waiting.splice(0)) this.insert(message);
    while (this.list.childElementCount > SHOWN_MAX) this.list.firstElementChild.remove();
    this.list.setAttribute('aria-busy', 'false');
    $('empty').hidden = true;
    if (stay) $('newer').hidden = false;
    else this.toEnd();
  }

  /** History may come after newer messages: the offset says where. */
  insert(message) {
    const item = element('li', [message.mine && 'mine', message.recovered && 'recovered'].filter(Boolean).join(' '));
    item.dataset.test = 'message';
    item.dataset.offset = message.offset;
    const who = element('b', '', message.name);
    if (message.at) who.append(element('time', '', message.at));
    if (message.recovered) who.append(element('span', 'tag', 'recovered'));
    item.append(face(message), who, element('p', '', message.text));
    let before = null;
    for (let other = this.list.lastElementChild; other && message.offset; other = other.previousElementSibling) {
      if (Number(other.dataset.offset) <= message.offset) break;
      before = other;
    }
    this.list.insertBefore(item, before);
  }

  isAtEnd() {
    return this.scroll.scrollHeight - this.scroll.scrollTop - this.scroll.clientHeight < NEAR;
  }

  toEnd() {
    this.scroll.scrollTop = this.scroll.scrollHeight;
    $('newer').hidden = true;
  }
}

export function drawPeople(people, me) {
  $('people-count').textContent = whole.format(people.size);
  const shown = [...people].sort(([a], [b]) => (b === me) - (a === me)).slice(0, 100);
  const old = new Map([...$('people').children].map((item) => [item.dataset.client, item]));
  $('people').replaceChildren(...shown.map(([id, card]) => {
    const { name, color } = card ?? { name: `guest ${id.slice(0, 4)}`, color: '#5b6172' };
    const kept = old.get(id);
    if (kept?.dataset.name === name) return kept;
    const item = element('li');
    item.dataset.test = 'person';
    item.dataset.client = id;
    item.dataset.name = name;
    item.append(face({ name, color }), element('span', '', name));
    if (id === me) item.append(element('span', 'me', 'you'));
    return item;
  }));
}

let typingTimer;
let typist = null;

export function showTyping(name) {
  typist = name;
  $('typing').textContent = `${name} is typing…`;
  clearTimeout(typingTimer);
  typingTimer = setTimeout(clearTyping, 3000);
}

export function clearTyping() {
  clearTimeout(typingTimer);
  typist = null;
  $('typing').textContent = '';
}

export function showOffline(offline) {
  $('offline').setAttribute('aria-checked', String(offline));
  if (offline) {
    $('recovery').textContent = 'You are offline. The room goes on without you.';
    $('recovery-figures').hidden = true;
  }
}

export function showRecovery({ missed, arrived, recovered, hasRecoveredPublications, away, complete }) {
  const seconds = whole.format(Math.round(away / 1000));
  $('recovery').dataset.recovered = String(recovered);
  $('recovery').dataset.hasRecoveredPublications = String(Boolean(hasRecoveredPublications));
  $('recovery-figures').hidden = false;
  $('missed').textContent = whole.format(missed);
  $('recovered').textContent = whole.format(arrived);
  if (!recovered) $('recovery').textContent = `Away ${seconds} s: the gap cannot be closed, the history does not reach back. Here is what is kept.`;
  else if (missed === 0) $('recovery').textContent = `Away ${seconds} s: you missed nothing.`;
  else if (complete) $('recovery').textContent = `Away ${seconds} s: everything you missed is here.`;
  else $('recovery').textContent = `Away ${seconds} s: catching up…`;
}

export function showBurst({ count, received, rate }) {
  $('burst-progress').max = count;
  $('burst-progress').value = received;
  $('burst-received').textContent = whole.format(received);
  $('burst-rate').textContent = received > 1 ? whole.format(rate) : '–';
}

export function showEcho(millis, best) {
  $('echo-last').textContent = millis.toFixed(2);
  $('echo-best').textContent = best.toFixed(2);
}
