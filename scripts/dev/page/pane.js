import { Client } from './wirepost.js';
import * as dev from './dev.js';
import { draw } from './way.js';

/** One person at one edge: what a chat application does with the client. */

const PAGE = 40;       // messages of one page of history
const MOST = 400;      // messages in the document; the oldest make room when nobody looks at them
const FEWEST = 200;

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const day = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });

export class Pane {
  #el; #log; #stored; #pending; #o; #client; #peer;
  #items = new Map();      // "from/cid" → {li, seq}
  #handed = new Set();     // "convId/seq": what the client handed over in this life of the page
  #convId = '';
  #more = true; #loading = false; #seen = false;
  #follow = true;          // the newest message is in view
  #frame = 0; #tick = null; #edgeUp = true;

  /**
   * @param {{slot: string, tint: string, user: string, peer: string, deviceId: string, system: string,
   *   edge: {n: number, name: string, url: string}, marks: import('./way.js').Marks,
   *   onAcked: (user: string, cid: string, convId: string, seq: number) => void, onTwice: () => void,
   *   onAttack: () => void, onWho: (pane: Pane) => void, onPeer: (peer: string) => void}} o
   */
  constructor(o) {
    this.#o = o;
    this.#peer = o.peer;
    const template = /** @type {HTMLTemplateElement} */ (document.getElementById('pane-template'));
    this.#el = /** @type {HTMLElement} */ (template.content.firstElementChild.cloneNode(true));
    this.#el.id = `pane-${o.slot}`;
    this.#el.dataset.tint = o.tint;
    this.#log = this.#q('.log');
    this.#stored = this.#q('.stored');
    this.#pending = this.#q('.pending');
    this.#label();
    this.#listen();
    this.#connect();
  }

  get element() { return this.#el; }
  get user() { return this.#o.user; }
  get peer() { return this.#peer; }
  /** @returns {import('./wirepost.js').Client} */
  get client() { return this.#client; }

  close() {
    this.#client.close();
    cancelAnimationFrame(this.#frame);
    clearInterval(this.#tick);
    this.#el.remove();
  }

  wake() { this.#client.wake(); }
  flush() { this.#client.flush(); }

  /** @param {import('./dev.js').SystemStatus} s */
  showSystem(s) {
    const edge = s.edges.find((e) => e.n === this.#o.edge.n);
    const back = edge.up && !this.#edgeUp;
    this.#edgeUp = edge.up;
    const b = this.#q('.crash');
    b.disabled = !edge.up;
    b.querySelector('span').textContent = edge.up ? `Crash ${edge.name}` : `${edge.name} is down`;
    if (back) this.#o.onAttack(); // and the strip looks what it left behind
  }

  #q(s) { return this.#el.querySelector(s); }

  #label() {
    const { user, edge, slot } = this.#o;
    this.#el.setAttribute('aria-label', `${user} at ${edge.name}`);
    this.#q('.avatar').textContent = [...user][0] ?? '?';
    this.#q('h2').textContent = user;
    this.#q('.edge').textContent = `${edge.name} :${new URL(edge.url).port}`;
    this.#q('.crash span').textContent = `Crash ${edge.name}`;
    this.#q('datalist').id = `peers-${slot}`;
    this.#q('.peer').setAttribute('list', `peers-${slot}`);
    this.#q('.peer').value = this.#peer;
    this.#log.setAttribute('aria-label', `Messages between ${user} and ${this.#peer}`);
    this.#q('textarea').setAttribute('aria-label', `Message from ${user} to ${this.#peer}`);
  }

  #listen() {
    this.#q('.plug').addEventListener('click', () => this.#plug());
    this.#q('.crash').addEventListener('click', () => this.#crash());
    this.#q('.many').addEventListener('click', () => this.#sendMany(1000));
    this.#q('.login').addEventListener('click', () => this.#o.onWho(this));
    this.#q('.peer').addEventListener('change', (ev) => this.#choose(ev.target.value));
    this.#q('.peer').addEventListener('focus', () => this.#listPeers());
    this.#q('.jump').addEventListener('click', () => { this.#follow = true; this.#toEnd(); this.#log.focus(); });
    this.#log.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    this.#log.addEventListener('click', (ev) => this.#clicked(ev));
    const form = this.#q('form'), text = this.#q('textarea');
    form.addEventListener('submit', (ev) => {
      ev.preventDefault();
      const words = text.value.trim();
      text.value = '';
      if (words) this.#send(words);
    });
    text.addEventListener('keydown', (ev) => {
      if (ev.key === 'Enter' && !ev.shiftKey && !ev.isComposing) {
        ev.preventDefault();
        form.requestSubmit();
      }
    });
  }

  // ---- the client ----

  #connect() {
    const { user, deviceId, system, edge, marks } = this.#o;
    const c = this.#client = new Client({ urls: edge.url, userId: user, deviceId, token: () => dev.token(user),
      storage: localStorage, storageKey: `wirepost/${system}/${encodeURIComponent(user)}/${deviceId}`, minBackoffMs: 250, maxBackoffMs: 2_500 });
    c.on('state', (s) => this.#state(s));
    c.on('synced', () => this.#history());
    c.on('message', (m) => this.#message(m));
    c.on('sending', (ev) => { marks.sent(ev.clientMsgId); this.#item(user, ev.clientMsgId)?.li.classList.add('sending'); });
    c.on('stored', (ev) => this.#acked(ev));
    c.on('refused', (ev) => this.#refused(ev));
    c.on('delayed', (ev) => this.#note(ev.clientMsgId, 'waits for the store'));
    c.on('warning', (err) => console.info(`${user}: ${err.message}`));
    for (const e of c.outbox) if (e.to === this.#peer) this.#show({ from: user, clientMsgId: e.clientMsgId, body: e.body, own: true });
    c.connect();
  }

  #state(s) {
    const el = this.#q('.state');
    clearInterval(this.#tick);
    const say = (tone, text) => { el.dataset.tone = tone; if (el.textContent !== text) el.textContent = text; };
    this.#el.dataset.state = s.state;
    for (const li of this.#pending.children) {
      if (!li.classList.contains('refused')) li.querySelector('.when').textContent = s.state === 'online' ? 'sending' : 'waits';
    }
    this.#el.dataset.conn = s.connId ?? '';
    switch (s.state) {
      case 'online':
        say('good', s.resumed ? 'online, resumed' : 'online');
        if (this.#client.ready) this.#history();
        break;
      case 'connecting':
        if (el.dataset.tone !== 'wait') say('wait', 'connecting');
        break;
      case 'waiting':
        say('wait', 'reconnecting');
        break;
      case 'stopped':
        say('bad', `refused (${s.code})`);
        break;
      default:
        say('off', 'plug pulled');
    }
  }

  #plug() {
    const b = this.#q('.plug'), out = this.#el.dataset.plug !== 'out';
    this.#el.dataset.plug = out ? 'out' : 'in';
    b.setAttribute('aria-pressed', String(out));
    b.querySelector('span').textContent = out ? 'Plug it in' : 'Pull the plug';
    if (out) this.#client.disconnect();
    else this.#client.connect();
    this.#o.onAttack();
  }

  async #crash() {
    this.#q('.crash').disabled = true;
    try { await dev.crash(this.#o.edge.n); } catch (err) { console.info(err.message); }
    this.#o.onAttack();
  }

  #send(text) {
    const { clientMsgId } = this.#client.send(this.#peer, { text });
    this.#follow = true;
    this.#show({ from: this.user, clientMsgId, body: { text }, own: true });
  }

  /** In slices, so that the page stays alive. */
  async #sendMany(n) {
    const b = this.#q('.many');
    b.disabled = true;
    this.#log.setAttribute('aria-busy', 'true');
    for (let i = 1; i <= n; i++) {
      this.#send(`${i.toLocaleString('en')} of ${n.toLocaleString('en')}`);
      if (i % 50 === 0) await new Promise((done) => requestAnimationFrame(done));
    }
    b.disabled = false;
    this.#log.removeAttribute('aria-busy');
  }

  // ---- whom with ----

  #choose(raw) {
    const peer = raw.trim();
    if (!peer || peer === this.#peer) {
      this.#q('.peer').value = this.#peer;
      return;
    }
    this.#o.onPeer(peer);
  }

  async #listPeers() {
    try {
      const { conversations } = await this.#client.conversations({ limit: 50, timeoutMs: 3_000 });
      this.#q('datalist').replaceChildren(...conversations.filter((c) => c.peer).map((c) => {
        const o = document.createElement('option');
        o.value = c.peer;
        return o;
      }));
    } catch { /* a name can be typed all the same */ }
  }

  // ---- messages ----

  #mine(m) {
    return (m.from === this.user && m.to === this.#peer) || (m.from === this.#peer && m.to === this.user);
  }

  #message(m) {
    const id = `${m.convId}/${m.seq}`;
    if (this.#handed.has(id)) this.#o.onTwice();
    this.#handed.add(id);
    this.#o.marks.got(m.clientMsgId, this.user);
    if (this.#mine(m)) {
      this.#convId = m.convId;
      this.#show(m);
    }
  }

  #acked(ev) {
    this.#o.onAcked(this.user, ev.clientMsgId, ev.convId, ev.seq);
    const item = this.#item(this.user, ev.clientMsgId);
    if (item) this.#place(item, ev.seq, ev.ts);
  }

  #item(from, cid) { return this.#items.get(`${from}/${cid}`); }

  /** Shows a message once, at its place. */
  #show(m) {
    let item = this.#item(m.from, m.clientMsgId);
    if (!item) {
      item = { li: this.#render(m), seq: 0 };
      this.#items.set(`${m.from}/${m.clientMsgId}`, item);
      if (!m.seq) this.#pending.appendChild(item.li);
    }
    if (m.seq) this.#place(item, m.seq, m.ts);
    if (this.#seen && !this.#more) this.#q('.older').textContent = 'the beginning of the conversation';
    this.#soon();
  }

  #render(m) {
    const li = document.createElement('li');
    li.className = m.own ? 'own' : '';
    li.dataset.from = m.from;
    li.dataset.cid = m.clientMsgId;
    const bubble = li.appendChild(document.createElement('div'));
    bubble.className = 'bubble';
    const text = bubble.appendChild(document.createElement('span'));
    text.className = 'text';
    text.textContent = typeof m.body?.text === 'string' ? m.body.text : JSON.stringify(m.body);
    const meta = bubble.appendChild(document.createElement('button'));
    meta.type = 'button';
    meta.className = 'meta';
    meta.setAttribute('aria-expanded', 'false');
    meta.setAttribute('aria-label', 'sending');
    meta.append(...(m.own ? [icon('clock')] : []), tag('seq', ''), tag('when', !m.own ? '' : this.#client.status.state === 'online' ? 'sending' : 'waits'));
    return li;
  }

  /** Gives a message its seq, and its place behind the one before. */
  #place(item, seq, ts) {
    if (item.seq) return;
    item.seq = seq;
    const { li } = item;
    li.dataset.seq = String(seq);
    const when = new Date(ts), today = Date.now() - ts < 86_400_000 / 2;
    li.querySelector('use')?.setAttribute('href', '#i-check');
    li.querySelector('.seq').textContent = `#${seq}`;
    li.querySelector('.when').textContent = (today ? clock : day).format(when);
    li.querySelector('.meta').setAttribute('aria-label', `stored as number ${seq}, ${(today ? clock : day).format(when)}: show its way`);
    let after = this.#stored.lastElementChild;
    while (after && Number(after.dataset.seq) > seq) after = after.previousElementSibling;
    if (after) after.after(li);
    else this.#stored.prepend(li);
    same(li);
    same(li.nextElementSibling);
    this.#soon();
  }

  #refused(ev) {
    this.#note(ev.clientMsgId, `refused: ${ev.reason}`);
    const item = this.#item(this.user, ev.clientMsgId);
    item?.li.classList.add('refused');
    item?.li.querySelector('use')?.setAttribute('href', '#i-cross');
  }

  #note(cid, text) {
    const item = this.#item(this.user, cid);
    if (item && !item.seq) item.li.querySelector('.when').textContent = text;
  }

  // ---- history ----

  /** The newest page at the start, then the page before the oldest shown. */
  async #history() {
    if (this.#loading || (this.#seen && !this.#more) || this.#client.status.state !== 'online') return;
    const oldest = Number(this.#stored.firstElementChild?.dataset.seq);
    if (this.#seen && this.#log.scrollTop > 300 && oldest) return;
    this.#loading = true;
    const label = this.#q('.older');
    if (this.#seen) label.textContent = 'loading older messages …';
    try {
      const page = await this.#client.history({ peer: this.#peer, beforeSeq: this.#seen && oldest ? oldest : undefined, limit: PAGE });
      const below = this.#log.scrollHeight - this.#log.scrollTop;
      this.#convId = page.convId;
      this.#seen = true;
      this.#more = page.more;
      for (const m of page.messages) this.#show(m);
      label.textContent = page.more ? '' : this.#items.size ? 'the beginning of the conversation' : 'no messages yet: write the first';
      if (!this.#follow) this.#log.scrollTop = this.#log.scrollHeight - below;
    } catch { // the connection is away for long: once more when it is back
      label.textContent = '';
    }
    this.#loading = false;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#log;
    this.#follow = scrollHeight - scrollTop - clientHeight < 40;
    if (this.#follow) this.#q('.jump').hidden = true;
    if (scrollTop < 240 && this.#seen) this.#history();
  }

  #soon() {
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      if (this.#follow) this.#toEnd();
      else this.#q('.jump').hidden = false;
    });
  }

  #toEnd() {
    this.#trim();
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#q('.jump').hidden = true;
  }

  #trim() {
    if (this.#stored.childElementCount <= MOST) return;
    while (this.#stored.childElementCount > FEWEST) {
      const li = this.#stored.firstElementChild;
      this.#items.delete(`${li.dataset.from}/${li.dataset.cid}`);
      li.remove();
    }
    this.#more = true;
    this.#q('.older').textContent = '';
  }

  // ---- the way of a message ----

  async #clicked(ev) {
    const li = ev.target.closest('li[data-seq]');
    if (!li || ev.target.closest('.way') || (getSelection()?.type === 'Range' && !ev.target.closest('.meta'))) return;
    const meta = li.querySelector('.meta'), open = li.querySelector('.way');
    meta.setAttribute('aria-expanded', String(!open));
    li.querySelector('.bubble').classList.toggle('open', !open);
    if (open) {
      open.remove();
      return;
    }
    const way = await draw(li.dataset.from, li.dataset.cid, this.#o.marks);
    if (meta.getAttribute('aria-expanded') !== 'true' || li.querySelector('.way')) return;
    li.append(way);
    way.scrollIntoView({ block: 'nearest' });
  }
}

/** Marks a message that follows one of the same sender. */
function same(li) {
  if (li) li.classList.toggle('same', li.previousElementSibling?.dataset.from === li.dataset.from);
}

function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('aria-hidden', 'true');
  svg.appendChild(document.createElementNS('http://www.w3.org/2000/svg', 'use')).setAttribute('href', `#i-${name}`);
  return svg;
}

function tag(cls, text) {
  const span = document.createElement('span');
  span.className = cls;
  span.textContent = text;
  return span;
}
