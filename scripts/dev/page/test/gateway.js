/**
 * A gateway in memory that speaks im.json.v1, and a clock that only moves when told to:
 * what wirepost.js is tested against, faults included. It is no model of the real one
 * beyond what a client can see.
 */

/** Lets everything run that waits for nothing but promises. */
export async function settle() { for (let i = 0; i < 40; i++) await null; }

export class FakeClock {
  ms = 1_700_000_000_000; #timers = []; #n = 0;
  jitter = 1; // what random() returns
  now = () => this.ms;
  random = () => this.jitter;
  setTimeout = (fn, ms) => { const t = { at: this.ms + ms, n: ++this.#n, fn }; this.#timers.push(t); return t; };
  clearTimeout = (t) => { this.#timers = this.#timers.filter((x) => x !== t); };

  /** Moves time on, and calls what becomes due, in order. */
  async advance(ms) {
    await settle();
    const end = this.ms + ms;
    for (;;) {
      const due = this.#timers.filter((t) => t.at <= end).sort((a, b) => a.at - b.at || a.n - b.n)[0];
      if (!due) break;
      this.clearTimeout(due);
      this.ms = Math.max(this.ms, due.at);
      due.fn();
      await settle();
    }
    this.ms = end;
    await settle();
  }
}

export class FakeStorage {
  map = new Map();
  getItem = (k) => this.map.get(k) ?? null;
  setItem = (k, v) => void this.map.set(k, String(v));
  removeItem = (k) => void this.map.delete(k);
}

/** What a test may change: every hook returns true to let the thing happen. */
export class FakeGateway {
  sockets = [];                   // open ones
  frames = [];                    // what clients sent: {conn, text, m}
  convs = new Map();              // convId → stored messages
  log = new Map();                // user → DOWN frames (text), the token is "e<epoch>.<n>"
  epoch = 1;
  up = (_conn, _m) => true;       // a frame of a client is worked
  down = (_conn, _m) => true;     // a DOWN frame reaches a socket
  accept = (_url) => true;        // a dial succeeds
  login = {};                     // added to login replies
  checkToken = (_token) => 0;     // close code, 0 for fine
  dials = [];

  /** The WebSocket class to give to a client. */
  get WebSocket() {
    const gw = this;
    return class {
      constructor(url, protocols) {
        Object.assign(this, { url, protocols, gw, open: false, user: null, login: null });
        gw.dials.push(url);
        queueMicrotask(() => {
          if (this.closed) return;
          if (!gw.accept(url)) { this.onclose?.({ code: 1006, reason: '' }); return; }
          this.open = true;
          gw.sockets.push(this);
          this.onopen?.({});
        });
      }
      send(text) { if (this.open) gw.#received(this, text); }
      close() { this.closed = true; gw.#gone(this); }
    };
  }

  /** Closes connections as the gateway. */
  cut(code, conns = this.sockets) {
    for (const c of [...conns]) {
      this.#gone(c);
      c.onclose?.({ code, reason: 'test' });
    }
  }

  connOf(user) { return this.sockets.find((c) => c.user === user); }
  tell(conn, m) { queueMicrotask(() => { if (conn.open) conn.onmessage?.({ data: JSON.stringify(m) }); }); }
  sent(what = () => true) { return this.frames.filter((f) => what(f.m)); }

  #gone(c) { c.open = false; this.sockets = this.sockets.filter((x) => x !== c); }

  #received(conn, text) {
    const m = JSON.parse(text);
    this.frames.push({ conn, text, m });
    if (m.msgType === 1) {
      if (this.up(conn, m)) this.tell(conn, { resume: this.token(conn.user), msgType: 1 });
    } else if (m.msgType === 2) {
      this.#login(conn, m);
    } else if (this.up(conn, m)) {
      this.work(conn, m);
    }
  }

  token(user) { return `e${this.epoch}.${this.log.get(user)?.length ?? 0}`; }

  #login(conn, m) {
    const code = this.checkToken(m.msgBody.token);
    if (code) { queueMicrotask(() => this.cut(code, [conn])); return; }
    conn.user = m.sendUserId;
    conn.login = m;
    const [, epoch, n] = /^e(\d+)\.(\d+)$/.exec(m.msgBody.resume ?? '') ?? [];
    const log = this.log.get(conn.user) ?? [];
    const resumed = Number(epoch) === this.epoch && Number(n) <= log.length;
    this.tell(conn, { resume: resumed ? m.msgBody.resume : this.token(conn.user), msgType: 2, msgBody: {
      connId: 'c1', edge: 'edge-1', userId: conn.user, serverTime: 0, heartbeatMs: 25_000, maxFrame: 2_000, resumed, features: [], ...this.login } });
    if (resumed) log.slice(Number(n)).forEach((f, i) => this.#hand(conn, f, Number(n) + i + 1));
  }

  #hand(conn, m, n) { if (this.down(conn, m)) this.tell(conn, { resume: `e${this.epoch}.${n}`, ...m }); }

  /** What a worker does with a frame. */
  work(conn, m) {
    if (m.bizType === 1) this.store(m.sendUserId, m.receivedUserId, m.clientMsgId, m.msgBody);
    else if (m.bizType === 2) this.tell(conn, { msgType: 3, bizType: 2, bizOptModule: m.bizOptModule, reqId: m.reqId, msgBody: this.#query(conn.user, m) });
  }

  store(from, to, cid, body) {
    const convId = 'd:' + [from, to].sort().join(':');
    if (!this.convs.has(convId)) this.convs.set(convId, []);
    const list = this.convs.get(convId);
    let msg = list.find((x) => x.sendUserId === from && x.clientMsgId === cid);
    if (!msg) {
      msg = { msgType: 3, sendUserId: from, receivedUserId: to, bizType: 1, bizOptModule: 1, convId, seq: list.length + 1, ts: 1, clientMsgId: cid, msgBody: body };
      list.push(msg);
    }
    for (const user of [from, to]) {
      if (!this.log.has(user)) this.log.set(user, []);
      const log = this.log.get(user);
      log.push(msg);
      for (const c of this.sockets) if (c.user === user) this.#hand(c, msg, log.length);
    }
  }

  #query(user, m) {
    const b = m.msgBody, mine = [...this.convs].filter(([id]) => id.split(':').includes(user));
    if (m.bizOptModule === 2) {
      return { conversations: mine.map(([convId, l]) => ({ convId, lastSeq: l.length, last: l.at(-1) })), more: false };
    }
    if (m.bizOptModule === 1) {
      const list = this.convs.get(b.convId ?? 'd:' + [user, m.receivedUserId].sort().join(':')) ?? [];
      const all = list.filter((x) => x.seq > (b.afterSeq ?? 0) && x.seq < (b.beforeSeq ?? Infinity));
      const page = b.afterSeq === undefined ? all.slice(-b.limit) : all.slice(0, b.limit);
      return { convId: b.convId ?? list[0]?.convId, messages: page, more: page.length < all.length };
    }
    const all = mine.flatMap(([id, l]) => l.filter((x) => x.seq > (b.cursors[id] ?? 0)));
    return { messages: all.slice(0, 3), more: all.length > 3 }; // small pages, to see them repeated
  }

  /** All NATS data is gone. */
  newEpoch() { this.epoch++; this.log.clear(); }
}
