import { Client } from './wirepost.js';
import * as dev from './dev.js';

/**
 * The live strip: what the panes' sends were promised, compared with what the history
 * really holds. It reads with a client of its own, over whichever edge is up.
 */

const KEEP = 20_000;       // acknowledged sends that are remembered
const REACH = 2_000;       // messages before the page's first send that are looked at too
const EVERY = 5_000;       // ms between reads while nothing happens
const FULL_EVERY = 60_000; // ms between reads from the start

const number = new Intl.NumberFormat('en');

export class Audit {
  #client; #peer; #key; #user;
  #acked = new Map();      // "user/cid" → {seq, convId}
  #convId = '';
  #pass = null;            // the read that is shown
  #reading = false; #again = ''; #timer = null; #fullAt = 0;
  #twiceShown = 0;
  #attackUntil = 0;

  /** @param {{urls: string[], user: string, peer: string, system: string}} o */
  constructor(o) {
    this.#user = o.user;
    this.#peer = o.peer;
    this.#key = `wirepost-acked/${o.system}/${[o.user, o.peer].sort().map(encodeURIComponent).join('/')}`;
    for (const [k, seq, convId] of JSON.parse(sessionStorage.getItem(this.#key) ?? '[]')) this.#acked.set(k, { seq, convId });
    this.#client = new Client({ urls: o.urls, userId: o.user, deviceId: 'audit', token: () => dev.token(o.user), minBackoffMs: 300, maxBackoffMs: 3_000 });
    this.#client.on('state', (s) => { this.#show(); if (s.state === 'online') this.read('full'); });
    this.#client.connect();
    addEventListener('pagehide', this.#save);
    this.#plan(EVERY);
    this.#age = setInterval(() => this.#showAge(), 1_000);
    this.#show();
  }

  close() {
    this.#save();
    clearTimeout(this.#timer);
    clearInterval(this.#age);
    removeEventListener('pagehide', this.#save);
    this.#client.close();
  }

  /** A pane's send was acknowledged. */
  acked(user, cid, convId, seq) {
    if (this.#convId && convId !== this.#convId) return;
    this.#acked.set(`${user}/${cid}`, { seq, convId });
    if (this.#acked.size > KEEP) this.#acked.delete(this.#acked.keys().next().value);
    this.#showAcked();
    this.#plan(400);
  }

  /** A pane was handed a message that it had been handed before. */
  shownTwice() { this.#twiceShown++; this.#show(); }

  /** Something was attacked: read everything again, now and when the dust has settled. */
  attacked() {
    this.#attackUntil = Date.now() + 12_000;
    this.read('full');
  }

  /**
   * Reads the history: what is new, or all of it.
   * @param {'new'|'full'} what
   */
  async read(what) {
    if (this.#reading) {
      if (this.#again !== 'full') this.#again = what;
      return;
    }
    this.#reading = true;
    const full = what === 'full' || !this.#pass || Date.now() - this.#fullAt > FULL_EVERY;
    try {
      const pass = full ? await this.#start() : this.#pass;
      const owed = new Set(this.#acked.keys()); // what was acknowledged before the read
      await this.#readOn(pass);
      pass.lost = [...owed].filter((k) => !pass.count.has(k)).length;
      pass.owed = owed.size;
      pass.at = Date.now();
      this.#pass = pass;
      if (full) this.#fullAt = Date.now();
    } catch { /* no answer: the state of the client is shown */ }
    this.#reading = false;
    this.#show();
    if (this.#again) {
      const next = this.#again;
      this.#again = '';
      this.read(/** @type {any} */ (next));
    } else {
      this.#plan(Date.now() < this.#attackUntil ? 1_500 : EVERY);
    }
  }

  #plan(ms) {
    const at = Date.now() + ms;
    if (this.#timer && this.#timerAt <= at) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.read(Date.now() < this.#attackUntil ? 'full' : 'new');
    }, ms);
  }
  #timerAt = 0; #age;

  async #start() {
    const newest = await this.#client.history({ peer: this.#peer, limit: 1 });
    this.#convId = newest.convId;
    for (const [k, a] of this.#acked) if (a.convId !== this.#convId) this.#acked.delete(k);
    const last = newest.messages.at(-1)?.seq ?? 0;
    let first = Math.max(1, last - REACH + 1);
    for (const a of this.#acked.values()) first = Math.min(first, a.seq);
    return { first, next: first, count: new Map(), twice: 0, holes: 0, lost: 0, owed: 0, at: 0 };
  }

  async #readOn(pass) {
    for (let more = true; more;) {
      const page = await this.#client.history({ peer: this.#peer, afterSeq: pass.next - 1, limit: 200 });
      for (const m of page.messages) {
        const key = `${m.from}/${m.clientMsgId}`;
        const n = (pass.count.get(key) ?? 0) + 1;
        pass.count.set(key, n);
        if (n > 1) pass.twice++;
        if (m.seq !== pass.next) pass.holes += Math.max(1, m.seq - pass.next);
        pass.next = m.seq + 1;
      }
      more = page.more && page.messages.length > 0;
    }
  }

  #save = () => {
    try {
      sessionStorage.setItem(this.#key, JSON.stringify([...this.#acked].map(([k, a]) => [k, a.seq, a.convId])));
    } catch { /* the page counts from here on */ }
  };

  #tone(tone) { for (const id of ['strip', 'verdict']) document.getElementById(id).dataset.tone = tone; }

  #showAge() {
    const s = this.#pass ? Math.round((Date.now() - this.#pass.at) / 1000) : -1;
    set('age', s < 0 ? '' : s < 2 ? 'read from the history just now' : `read from the history ${s} s ago`);
  }

  #showAcked() { set('n-acked', number.format(this.#acked.size)); }

  #show() {
    this.#showAcked();
    this.#showAge();
    const p = this.#pass, online = this.#client.status.state === 'online';
    const strip = document.getElementById('strip');
    if (!p) {
      for (const id of ['n-found', 'n-lost', 'n-twice', 'n-gapless']) set(id, '–');
      set('verdict', online ? 'reading the history …' : 'no edge answers: the history is read when one does');
      this.#tone('wait');
      return;
    }
    const twice = p.twice + this.#twiceShown, last = p.next - 1;
    set('n-found', number.format(p.owed - p.lost));
    zero('n-lost', p.lost);
    zero('n-twice', twice);
    const seq = document.getElementById('n-gapless');
    const range = last < p.first ? 'empty' : `${number.format(p.first)} – ${number.format(last)}`;
    seq.textContent = p.holes ? `${number.format(p.holes)} missing` : 'gapless';
    seq.appendChild(document.createElement('small')).textContent = ` ${range}`;
    seq.className = p.holes ? 'bad' : 'good';
    const broken = p.lost || twice || p.holes;
    this.#tone(broken ? 'bad' : online ? 'good' : 'wait');
    strip.dataset.readAt = String(p.at);
    strip.dataset.owed = String(p.owed);
    set('verdict', broken ? 'the promise is broken' : online ? 'the promise holds' : 'no edge answers: read when one does');
  }
}

function set(id, text) {
  const el = document.getElementById(id);
  if (el.textContent !== text) el.textContent = text;
}

function zero(id, n) {
  set(id, number.format(n));
  document.getElementById(id).closest('div').dataset.zero = n ? 'bad' : 'good';
}
