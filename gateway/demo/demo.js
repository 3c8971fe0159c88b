// The page: reads what the person does, tells the room, shows what the room tells.
import { Room } from './room.js';
import { $, Messages, clearTyping, drawPeople, setProblem, setState, showBurst, showEcho, showOffline, showRecovery, showTyping } from './view.js';

const COLORS = ['#b4235a', '#a3401b', '#7a5a00', '#2f6f2a', '#0b6b68', '#1f5fa8', '#4b45c6', '#83309f'];
const FIRST = ['Swift', 'Quiet', 'Brave', 'Merry', 'Bright', 'Calm', 'Lucky', 'Bold'];
const SECOND = ['Heron', 'Otter', 'Lynx', 'Wren', 'Fox', 'Badger', 'Hare', 'Finch'];
const TYPING_PAUSE = 2000;

const pick = (list) => list[Math.floor(Math.random() * list.length)];
const messages = new Messages();
let room = null;
let best = Infinity;
let typedAt = 0;

// A tab keeps its own name; the room is in the address, so that a link leads into it.
$('name').value = sessionStorage.getItem('name') ?? `${pick(FIRST)} ${pick(SECOND)}`;
$('room').value = decodeURIComponent(location.hash.slice(1)).replace(/[^\w-]/g, '') || 'lobby';
setState('disconnected', 'not connected');

if (globalThis.Centrifuge === undefined) {
  $('missing').hidden = false;
  $('entry').hidden = true;
}

/** Tells the person when something that they asked for failed. */
async function tried(action) {
  setProblem(null);
  try {
    await action();
  } catch (error) {
    setProblem(`That did not work: ${error.message ?? error}`);
  }
}

const handlers = {
  state: setState,
  message: (message) => messages.add(message),
  fresh: () => messages.clear(),
  people: (people) => drawPeople(people, room?.me),
  typing: showTyping,
  recovery: showRecovery,
  burst: showBurst,
  problem: setProblem,
};

$('join').addEventListener('submit', (event) => {
  event.preventDefault();
  tried(async () => {
    const name = $('name').value.trim();
    const channel = $('room').value.trim();
    if (!name || !channel) return;
    const config = await (await fetch('/demo/config.json')).json();
    sessionStorage.setItem('name', name);
    history.replaceState(null, '', `#${channel}`);
    const host = `${location.hostname}:${config.port}`;
    $('where').textContent = `${config.node} · ${config.version} · ${host}`;
    $('where').hidden = false;
    $('talk-title').textContent = `# ${channel}`;
    document.title = `#${channel} – Ringway demo`;
    messages.clear();
    showOffline(false);
    const person = { name, color: pick(COLORS) };
    room = new Room({ Centrifuge, url: `ws://${host}${config.path}`, room: channel, person, on: handlers });
    room.join();
    $('entry').hidden = true;
    $('inside').hidden = false;
    $('text').focus();
  });
});

$('leave').addEventListener('click', () => {
  room.offline = true;
  room.leave();
  room = null;
  clearTyping();
  setState('disconnected', 'not connected');
  $('inside').hidden = true;
  $('entry').hidden = false;
  $('name').focus();
});

$('say').addEventListener('submit', (event) => {
  event.preventDefault();
  const text = $('text').value.trim();
  if (!text) return;
  tried(async () => {
    await room.say(text);
    if ($('text').value.trim() === text) $('text').value = '';
    typedAt = 0;
    $('text').focus();
  });
});

$('text').addEventListener('input', () => {
  if ($('text').value && Date.now() - typedAt > TYPING_PAUSE) {
    typedAt = Date.now();
    room.typing();
  }
});

$('offline').addEventListener('click', () => {
  const offline = $('offline').getAttribute('aria-checked') !== 'true';
  showOffline(offline);
  if (offline) room.goOffline();
  else room.comeBack();
});

$('echo').addEventListener('click', () => tried(async () => {
  const millis = await room.echo();
  best = Math.min(best, millis);
  showEcho(millis, best);
}));

$('burst').addEventListener('submit', (event) => {
  event.preventDefault();
  tried(() => room.publishBurst(Number($('burst-count').value)));
});
