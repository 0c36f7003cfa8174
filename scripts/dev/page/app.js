import * as dev from './dev.js';
import { Audit } from './audit.js';
import { Marks } from './way.js';
import { Pane } from './pane.js';

/**
 * The page: two people at two edges, or (`?as=carol&to=alice&edge=2`) one.
 */

const params = new URLSearchParams(location.search);
const marks = new Marks();
/** @type {dev.SystemStatus} */ let system;
/** @type {Pane[]} */ let panes = [];
/** @type {Audit|null} */ let audit = null;

const $ = (id) => /** @type {any} */ (document.getElementById(id));

/** Who is where: of the address, else of this window's last time, else alice and bob. */
function seats() {
  if (params.has('as')) {
    const n = Number(params.get('edge')) || 1;
    return [{ slot: 'single', tint: 'cool', n, user: params.get('as'), peer: params.get('to') || 'alice' }];
  }
  const named = params.has('left') || params.has('right');
  const saved = (!named && JSON.parse(sessionStorage.getItem('wirepost-seats') ?? 'null')) || [{}, {}];
  const left = params.get('left') || 'alice', right = params.get('right') || 'bob';
  return [
    { slot: 'left', tint: 'warm', n: 1, user: left, peer: right, ...saved[0] },
    { slot: 'right', tint: 'cool', n: 2, user: right, peer: left, ...saved[1] },
  ];
}

let current = [];

/**
 * A device of its own for each window: state may have one owner at a time. The lock is
 * held as long as the page lives; a reload gets the same device again.
 */
async function claimDevice(user, slot) {
  const key = `wirepost-device/${slot}/${user}`;
  const before = sessionStorage.getItem(key);
  if (before && await claim(`${user}/${before}`, 1_000)) return before;
  for (let i = 1; ; i++) {
    const id = i === 1 ? slot : `${slot}-${i}`;
    if (id !== before && await claim(`${user}/${id}`, 0)) {
      sessionStorage.setItem(key, id);
      return id;
    }
  }
}

const claims = new Map(); // name → gives the lock back

function claim(name, waitMs) {
  if (claims.has(name)) return true;
  return new Promise((resolve) => {
    const opts = waitMs ? { signal: AbortSignal.timeout(waitMs) } : { ifAvailable: true };
    navigator.locks.request(`wirepost/${name}`, opts, (lock) => {
      if (!lock) return resolve(false);
      resolve(true);
      return new Promise((done) => claims.set(name, done));
    }).catch(() => resolve(false));
  });
}

async function open(i) {
  const seat = current[i];
  const edge = system.edges.find((e) => e.n === seat.n) ?? system.edges[0];
  const deviceId = await claimDevice(seat.user, seat.slot);
  const pane = new Pane({ ...seat, edge, deviceId, system: system.system, marks,
    onAcked: (...a) => audit?.acked(...a), onTwice: () => audit?.shownTwice(), onAttack: () => audit?.attacked(),
    onWho: () => ask(i), onPeer: (peer) => seatAt(i, { peer }) });
  panes[i]?.close();
  panes[i] = pane;
  const main = $('panes');
  main.insertBefore(pane.element, main.children[i] ?? null);
  pane.showSystem(system);
}

/** Somebody else sits down, or the same one talks to somebody else. */
async function seatAt(i, change) {
  const old = current[i];
  current[i] = { ...old, ...change };
  if (current.length > 1) sessionStorage.setItem('wirepost-seats', JSON.stringify(current.map(({ user, peer }) => ({ user, peer }))));
  panes[i].close();
  if (current[i].user !== old.user) claims.get(`${old.user}/${old.slot}`)?.();
  await open(i);
  if (i === 0) startAudit();
}

function startAudit() {
  audit?.close();
  const { user, peer } = current[0];
  audit = new Audit({ urls: system.edges.map((e) => e.url), user, peer, system: system.system });
}

function ask(i) {
  const dialog = $('login-dialog'), form = dialog.querySelector('form');
  form.elements.user.value = '';
  form.elements.peer.value = current[i].user;
  form.querySelector('[value=cancel]').onclick = () => dialog.close();
  form.onsubmit = (ev) => {
    const user = form.elements.user.value.trim(), peer = form.elements.peer.value.trim();
    if (!user || !peer) return ev.preventDefault();
    if (ev.submitter?.value === 'here') {
      seatAt(i, { user, peer: peer === user ? current[i].peer : peer });
    } else {
      window.open(`/?${new URLSearchParams({ as: user, to: peer, edge: String(current[i].n) })}`);
    }
  };
  dialog.showModal();
  form.elements.user.focus();
}

// ---- the system ----

function showSystem() {
  const { paused } = system.worker;
  $('worker-state').dataset.tone = paused ? 'wait' : 'good';
  if ($('worker-state').textContent !== (paused ? 'worker paused' : 'worker at work')) $('worker-state').textContent = paused ? 'worker paused' : 'worker at work';
  const b = $('worker-button');
  b.disabled = false;
  b.setAttribute('aria-pressed', String(paused));
  b.querySelector('span').textContent = paused ? 'Let it work again' : 'Pause the worker';
  b.querySelector('use').setAttribute('href', paused ? '#i-play' : '#i-pause');
  for (const p of panes) p.showSystem(system);
}

async function watch() {
  try {
    const s = await dev.status();
    if (system && s.system !== system.system) return location.reload(); // another data folder
    system = s;
    showSystem();
  } catch {
    $('worker-state').dataset.tone = 'bad';
    $('worker-state').textContent = 'the development process is gone';
    $('worker-button').disabled = true;
  }
  setTimeout(watch, 1_000);
}

$('worker-button').addEventListener('click', async () => {
  $('worker-button').disabled = true;
  try { await (system.worker.paused ? dev.resume() : dev.pause()); } catch (err) { console.info(err.message); }
  audit?.attacked();
  system = await dev.status();
  showSystem();
});
$('audit-button').addEventListener('click', () => audit?.read('full'));
addEventListener('online', () => panes.forEach((p) => p.wake()));
addEventListener('pageshow', (ev) => { if (ev.persisted) panes.forEach((p) => p.wake()); });
document.addEventListener('visibilitychange', () => { if (!document.hidden) panes.forEach((p) => p.wake()); });
addEventListener('pagehide', () => panes.forEach((p) => p.flush()));

async function start() {
  for (;;) {
    try {
      system = await dev.status();
      break;
    } catch {
      await new Promise((done) => setTimeout(done, 1_000));
    }
  }
  current = seats();
  if (current.length === 1) document.title = `wirepost — ${current[0].user}`;
  for (let i = 0; i < current.length; i++) await open(i);
  startAudit();
  showSystem();
  document.body.dataset.ready = 'true';
  setTimeout(watch, 1_000);
}

start();
