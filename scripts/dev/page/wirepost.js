/**
 * wirepost: the JavaScript client of the protocol im.json.v1.
 *
 * It logs in, sends with retries until each send is stored or refused, and hands over
 * every message of the user once and in order of its conversation, across any reconnect.
 * It has no dependencies, touches no DOM, and knows nothing of what a message means.
 *
 *     const client = new Client({ urls: 'wss://chat.example/ws', userId: 'u1', deviceId: 'web-1',
 *                                 token: () => fetchToken(), storage: localStorage });
 *     client.on('message', (m) => show(m));
 *     client.connect();
 *     const { stored } = client.send('u2', { text: 'hello' });
 *     console.log('stored as', (await stored).seq);
 *     addEventListener('online', () => client.wake());
 *
 * A client without saved state starts at the end of each conversation: it lists the
 * user's conversations once and hands over what is stored after that; what was before is
 * read with history(). Its own sends leave only when that list is there.
 *
 * Handlers run synchronously, in order. State is saved after they ran: after a crash of
 * the page the last messages may be handed over again, none is skipped. One state belongs
 * to one client at a time: give each window a device id of its own.
 *
 * @module wirepost
 */

/** @typedef {{getItem(k: string): string|null, setItem(k: string, v: string): void, removeItem(k: string): void}} Store */
/** @typedef {{now(): number, setTimeout(fn: () => void, ms: number): any, clearTimeout(t: any): void, random(): number}} Clock */

/**
 * @typedef {object} Options
 * @property {string|string[]} urls       addresses of the gateway; a reconnect goes on to the next one
 * @property {string} userId              whose client this is: the subject of the token
 * @property {string} deviceId            names this device in the user's list of sessions, ≤ 128 bytes
 * @property {() => string|Promise<string>} token  returns a fresh token; called at the first login, before
 *                                        the token expires, and when the gateway says that it has expired
 * @property {Store} [storage]            where state is kept, e.g. localStorage; without one it is lost with the page
 * @property {string} [storageKey]        default `wirepost/<userId>/<deviceId>`
 * @property {any} [WebSocket]            default globalThis.WebSocket
 * @property {Clock} [clock]              for tests
 * @property {number} [minBackoffMs]      ceiling of the first wait before a reconnect; each wait is random below its ceiling
 * @property {number} [maxBackoffMs]      ceiling of any wait before a reconnect
 * @property {number} [ackTimeoutMs]      unanswered sends are repeated after this; doubles up to a minute
 * @property {number} [holdMs]            how long a message waits for the one before it until history is asked
 */

/**
 * A stored message.
 * @typedef {object} Message
 * @property {string} convId       opaque
 * @property {number} seq          from 1, gapless within convId
 * @property {string} from
 * @property {string} to           of a direct conversation: the other member as seen from `from`
 * @property {string} clientMsgId
 * @property {number} ts           Unix milliseconds of storing; never orders
 * @property {number} bizType
 * @property {number} bizOp
 * @property {any}    body
 * @property {boolean} own         `from` is the user of this client, on whatever device
 */

/**
 * What `on` offers. Every handler gets one object.
 *
 * | event        | object | when |
 * |--------------|--------|------|
 * | `state`      | Status | the connection's state changed |
 * | `message`    | Message | the next message of a conversation, once |
 * | `synced`     | {}     | what was missed is there, or (a fresh client) the conversations' ends are known |
 * | `sending`    | {clientMsgId, attempt} | a send was written to the socket |
 * | `stored`     | {clientMsgId, convId, seq, ts} | an own send is stored |
 * | `delayed`    | {clientMsgId, code, reason, retryAfterMs} | stored later; nothing to do |
 * | `refused`    | {clientMsgId, code, reason} | an own send will never be stored |
 * | `skipped`    | {convId, from, to} | history no longer holds these; the messages go on behind them |
 * | `notice`     | {code, reason, retryAfterMs} | a word of the gateway; the client has acted on it |
 * | `warning`    | Error  | something failed that is being tried again |
 *
 * @typedef {'state'|'message'|'synced'|'sending'|'stored'|'delayed'|'refused'|'skipped'|'notice'|'warning'} EventName
 */

/**
 * @typedef {object} Status
 * @property {'offline'|'connecting'|'online'|'waiting'|'stopped'} state
 *   offline: disconnect() was called or connect() was not; waiting: for the next attempt;
 *   stopped: the gateway said that reconnecting is useless
 * @property {string} [edge]      online: name of the edge
 * @property {string} [connId]    online
 * @property {boolean} [resumed]  online: what was missed follows by itself
 * @property {number} [retryInMs] waiting
 * @property {number} [code]      waiting, stopped: the WebSocket close code
 * @property {string} [reason]
 */

/** The subprotocol that this client speaks. */
export const SUBPROTOCOL = 'im.json.v1';

const HEARTBEAT = 1, LOGIN = 2, BUSINESS = 3, NOTICE = 4;         // msgType
const CHAT = 1, QUERY = 2;                                        // bizType
const SEND = 1;                                                   // bizOptModule of CHAT
const HISTORY = 1, CONVERSATIONS = 2, SYNC = 3;                   // bizOptModule of QUERY
const BODY_TOO_LARGE = 1006;                                      // code of a refusal
const DRAIN = 3000, RESYNC = 3001, TOKEN_EXPIRY = 3002;           // codes of a notice

const PAGE = 200;               // messages asked for at a time
const WINDOW = 64;              // sends that are unanswered at a time
const MAX_HELD = 1000;          // messages of one conversation that wait for the one before
const LOGIN_TIMEOUT = 10_000;   // ms from dialling to the login reply
const PROBE_TIMEOUT = 5_000;    // ms for the answer to a heartbeat after a wake
const ASK_TIMEOUT = 5_000;      // ms until a question is asked again; doubles
const MAX_RETRY = 60_000;       // ms; ceiling of what doubles
const LONGEST_ACK = 300_000;    // ms; that of the wait for an echo: a gateway that lost a send ends the connection
const SAVE_DELAY = 150;         // ms that cursors may wait for being saved
const STEADY = 5_000;           // ms online after which the backoff starts again

/**
 * What a client does after a close code: whether it connects again, and whether it gets a
 * new token before. 4000–4499 reconnect, 4500–4999 do not; 1002, 1003 and 1007 say that
 * this client is broken; everything else (1006, 1011–1015, unknown) reconnects.
 * @param {number} code
 * @returns {{again: boolean, newToken: boolean}}
 */
export function afterClose(code) {
  if (code === 4401) return { again: true, newToken: true };
  const stop = (code >= 4500 && code <= 4999) || code === 1002 || code === 1003 || code === 1007;
  return { again: !stop, newToken: false };
}

/** A permanent refusal by the gateway, or (code 0) something this client found itself. */
export class RefusedError extends Error {
  /** @param {number} code @param {string} reason for logs */
  constructor(code, reason) {
    super(code ? `refused with code ${code}: ${reason}` : reason);
    this.name = 'RefusedError';
    this.code = code;
    this.reason = reason;
  }
}

/** One device of one user. */
export class Client {
  /** @type {Required<Options>} */ #o;
  #urls; #url = 0;
  #handlers = new Map();

  // The connection.
  #wanted = false;      // connect() was called last
  #life = 0;            // counts attempts; what belongs to an older one is ignored
  #ws = null;
  /** @type {Status} */ #status = { state: 'offline' };
  #timers = { dial: null, login: null, beat: null, probe: null, drain: null, steady: null, refresh: null };
  #attempts = 0;
  #heard = 0;           // when anything came in
  #beatMs = 25_000; #maxFrame = 128 << 10;
  #token = ''; #expiresAt = 0;

  // Sends that are neither stored nor refused, in order: clientMsgId → Entry.
  #outbox = new Map(); #inFlight = 0; #ackTimer = null; #ackDelay;

  // Received: convId → {convId, next, held, beyond, repairing, timer}.
  #convs = new Map();
  #known = false;       // the conversations' ends are known
  #early = [];          // came before that
  #catching = false;    // baseline or sync is at work: a hole of its own kind
  #again = false;       // sync once more when it is done
  #latest = '';         // newest resume token heard
  #safe = '';           // newest one with no hole before it: what is saved and sent

  // Questions: reqId → {frame, resolve, reject, timer, delay}.
  #asks = new Map(); #askCount = 0; #askPrefix;

  #saving = null; #outboxDirty = false; #closed = false;

  /** @param {Options} options */
  constructor(options) {
    const g = /** @type {any} */ (globalThis);
    this.#o = /** @type {any} */ ({
      storage: null, storageKey: `wirepost/${options.userId}/${options.deviceId}`, WebSocket: g.WebSocket,
      clock: { now: () => Date.now(), random: () => Math.random(),
        setTimeout: (fn, ms) => g.setTimeout(fn, ms), clearTimeout: (t) => g.clearTimeout(t) },
      minBackoffMs: 500, maxBackoffMs: 30_000, ackTimeoutMs: 10_000, holdMs: 1_000, ...options });
    this.#urls = [options.urls].flat();
    this.#ackDelay = this.#o.ackTimeoutMs;
    this.#askPrefix = uuid().slice(0, 8);
    this.#restore();
  }

  get userId() { return this.#o.userId; }
  get deviceId() { return this.#o.deviceId; }
  /** @returns {Status} */
  get status() { return this.#status; }
  /** Whether the conversations' ends are known: see `synced`. */
  get ready() { return this.#known; }

  /**
   * The sends that are neither stored nor refused, in order.
   * @returns {{clientMsgId: string, to: string, body: any}[]}
   */
  get outbox() {
    return [...this.#outbox.values()].map((e) => {
      const m = JSON.parse(e.frame);
      return { clientMsgId: e.id, to: m.receivedUserId, body: m.msgBody };
    });
  }

  /**
   * Calls fn at each event of a kind; see EventName.
   * @param {EventName} name @param {(ev: any) => void} fn
   * @returns {() => void} ends it
   */
  on(name, fn) {
    if (!this.#handlers.has(name)) this.#handlers.set(name, new Set());
    this.#handlers.get(name).add(fn);
    return () => this.#handlers.get(name).delete(fn);
  }

  /** Connects, and stays connected until disconnect(). */
  connect() {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#attempts = 0;
    this.#dial();
  }

  /** Drops the connection and stays offline. Sends wait in the outbox for connect(). */
  disconnect() {
    this.#wanted = false;
    this.#drop();
    this.#setStatus({ state: 'offline' });
    this.flush();
  }

  /** Ends the client: disconnect, and every unanswered question fails. The saved state stays. */
  close() {
    this.disconnect();
    this.#closed = true;
    for (const id of [...this.#asks.keys()]) this.#answer(id, null, new RefusedError(0, 'client is closed'));
    for (const c of this.#convs.values()) this.#stopTimer(c);
    this.#handlers.clear();
  }

  /**
   * Call it when the device wakes up: on `online`, and when the page becomes visible. It
   * reconnects at once, or makes sure that the connection is alive.
   */
  wake() {
    if (this.#status.state === 'waiting') this.#dial();
    else if (this.#status.state === 'online') this.#probe();
  }

  /** Saves the state now; call it on `pagehide`. */
  flush() {
    if (this.#saving) this.#o.clock.clearTimeout(this.#saving);
    this.#saving = null;
    this.#save();
  }

  /**
   * Sends a message. It is in the outbox, and saved, before this returns to the event loop;
   * `stored` settles when it is stored or refused, however long that takes.
   * @param {string} to @param {any} body any JSON value
   * @param {{clientMsgId?: string}} [opts] the id, if it is to be known before
   * @returns {{clientMsgId: string, stored: Promise<{convId: string, seq: number, ts: number}>}}
   */
  send(to, body, opts = {}) {
    const id = opts.clientMsgId ?? uuid();
    const frame = JSON.stringify({ msgType: BUSINESS, sendUserId: this.userId, receivedUserId: to,
      bizType: CHAT, bizOptModule: SEND, clientMsgId: id, msgBody: body });
    const e = newEntry(id, frame);
    this.#outbox.set(id, e);
    this.#outboxDirty = true;
    this.#saveSoon(0);
    if (byteLength(frame) > this.#maxFrame) {
      queueMicrotask(() => this.#refuse(id, 0, 'message is larger than the gateway takes'));
    } else {
      this.#pump();
    }
    return { clientMsgId: id, stored: e.done };
  }

  /**
   * One page of a conversation, ascending by seq. It goes on across reconnects.
   * @param {{convId?: string, peer?: string, afterSeq?: number, beforeSeq?: number, limit?: number, timeoutMs?: number}} q
   *   the conversation by convId, or the direct one with peer; afterSeq: the page behind
   *   it; beforeSeq: the page that ends before it; neither: the newest
   * @returns {Promise<{convId: string, messages: Message[], more: boolean}>}
   */
  async history(q) {
    const body = { convId: q.convId, afterSeq: q.afterSeq, beforeSeq: q.beforeSeq, limit: q.limit ?? 50 };
    const r = await this.#ask(HISTORY, body, { peer: q.convId ? undefined : q.peer, timeoutMs: q.timeoutMs ?? 30_000 });
    for (const m of r.messages ?? []) this.#ack(m);
    return { convId: r.convId, messages: (r.messages ?? []).map((m) => this.#message(m)), more: !!r.more };
  }

  /**
   * One page of the user's conversations, latest first.
   * @param {{limit?: number, cursor?: string, timeoutMs?: number}} [q]
   * @returns {Promise<{conversations: {convId: string, peer?: string, lastSeq: number, last: Message|null}[], more: boolean, cursor: string}>}
   */
  async conversations(q = {}) {
    const r = await this.#ask(CONVERSATIONS, { limit: q.limit ?? 50, cursor: q.cursor }, { timeoutMs: q.timeoutMs ?? 30_000 });
    const conversations = (r.conversations ?? []).map((c) => ({ ...c, last: c.last ? this.#message(c.last) : null }));
    return { conversations, more: !!r.more, cursor: r.cursor ?? '' };
  }

  // ---- connection ----

  async #dial() {
    this.#drop();
    const life = ++this.#life;
    this.#setStatus({ state: 'connecting' });
    this.#timers.login = this.#after(LOGIN_TIMEOUT, () => this.#lost(1006, 'no login reply in time'));
    let token;
    try {
      token = await this.#currentToken();
    } catch (err) {
      if (life === this.#life) {
        this.#warn('token', err);
        this.#lost(1006, 'no token');
      }
      return;
    }
    if (life !== this.#life) return;
    let ws;
    try {
      ws = new this.#o.WebSocket(this.#urls[this.#url++ % this.#urls.length], [SUBPROTOCOL]);
    } catch (err) {
      this.#warn('dial', err);
      this.#lost(1006, 'no connection');
      return;
    }
    this.#ws = ws;
    ws.onopen = () => { if (ws === this.#ws) this.#sendLogin(token, this.#safe); };
    ws.onmessage = (ev) => { if (ws === this.#ws) this.#received(ev.data); };
    ws.onclose = (ev) => { if (ws === this.#ws) this.#lost(ev.code, ev.reason); };
  }

  async #currentToken() {
    if (this.#token && (!this.#expiresAt || this.#o.clock.now() < this.#expiresAt - 5_000)) return this.#token;
    this.#token = await this.#o.token();
    this.#expiresAt = 0;
    return this.#token;
  }

  #sendLogin(token, resume) {
    const body = { token, deviceId: this.deviceId, resume: resume || undefined };
    this.#write(JSON.stringify({ msgType: LOGIN, sendUserId: this.userId, msgBody: body }));
  }

  /** The connection is gone, or there was none: what now is in the table of close codes. */
  #lost(code, reason) {
    this.#drop();
    const { again, newToken } = afterClose(code);
    if (newToken) this.#token = '';
    if (!again) {
      this.#wanted = false;
      this.#setStatus({ state: 'stopped', code, reason });
      return;
    }
    if (!this.#wanted) return;
    const ceiling = Math.min(this.#o.maxBackoffMs, this.#o.minBackoffMs * 2 ** Math.min(this.#attempts++, 20));
    const wait = Math.round(this.#o.clock.random() * ceiling); // full jitter
    this.#timers.dial = this.#after(wait, () => this.#dial());
    this.#setStatus({ state: 'waiting', retryInMs: wait, code, reason });
  }

  /** Leaves the socket, if there is one, without a word to anybody. */
  #drop() {
    this.#life++;
    for (const k of Object.keys(this.#timers)) {
      this.#o.clock.clearTimeout(this.#timers[k]);
      this.#timers[k] = null;
    }
    this.#o.clock.clearTimeout(this.#ackTimer);
    this.#ackTimer = null;
    for (const q of this.#asks.values()) this.#o.clock.clearTimeout(q.timer);
    const ws = this.#ws;
    this.#ws = null;
    this.#inFlight = 0;
    for (const e of this.#outbox.values()) e.sent = false;
    if (!ws) return;
    ws.onopen = ws.onmessage = ws.onclose = null;
    try { ws.close(1000); } catch { /* it is closed already */ }
  }

  #write(text) {
    try { this.#ws?.send(text); } catch (err) { this.#warn('write', err); }
  }

  #received(data) {
    this.#heard = this.#o.clock.now();
    let m;
    try { m = JSON.parse(data); } catch { return this.#warn('frame', new Error('not JSON')); }
    if (m === null || typeof m !== 'object') return;
    switch (m.msgType) {
      case LOGIN: this.#loginReply(m); break;
      case BUSINESS: this.#business(m); break;
      case NOTICE: this.#notice(m); break;
    }
    if (typeof m.resume === 'string' && m.resume && m.msgType !== LOGIN) {
      this.#latest = m.resume;
      this.#settle();
    }
  }

  #loginReply(m) {
    const r = m.msgBody ?? {};
    this.#expiresAt = r.expiresAt ? r.expiresAt - (r.serverTime || this.#o.clock.now()) + this.#o.clock.now() : 0;
    if (this.#status.state === 'online') return; // the token was refreshed
    this.#o.clock.clearTimeout(this.#timers.login);
    this.#timers.login = null;
    if (r.userId !== undefined && r.userId !== this.userId) return this.#lost(4501, 'the token is not of this user');
    if (r.heartbeatMs > 0) this.#beatMs = r.heartbeatMs;
    if (r.maxFrame > 0) this.#maxFrame = r.maxFrame;
    // With resumed:true the replay is still to come: our own token stays good until then.
    this.#latest = r.resumed ? this.#safe : (m.resume ?? '');
    this.#timers.steady = this.#after(STEADY, () => { this.#attempts = 0; });
    this.#beatLater();
    this.#setStatus({ state: 'online', edge: r.edge ?? '', connId: r.connId ?? '', resumed: !!r.resumed });
    for (const id of this.#asks.keys()) this.#put(id);
    if (!this.#known) this.#baseline();
    else if (!r.resumed) this.#sync();
    else this.#watchHoles();
    this.#refuseTooLarge();
    this.#pump();
  }

  #notice(m) {
    const ms = m.retryAfterMs ?? 0;
    switch (m.code) {
      case DRAIN: // at a random moment of the time that the edge gives
        this.#timers.drain ??= this.#after(Math.round(this.#o.clock.random() * ms), () => this.#dial());
        break;
      case RESYNC:
        this.#sync();
        break;
      case TOKEN_EXPIRY:
        this.#refresh();
        break;
    }
    this.#emit('notice', { code: m.code, reason: m.reason ?? '', retryAfterMs: ms });
  }

  async #refresh() {
    const life = this.#life;
    this.#token = '';
    try {
      const token = await this.#currentToken();
      if (life === this.#life) this.#sendLogin(token, '');
    } catch (err) {
      if (life !== this.#life) return;
      this.#warn('token', err);
      this.#timers.refresh = this.#after(5_000, () => this.#refresh());
    }
  }

  // ---- heartbeat ----

  #beatLater() {
    const due = this.#o.clock.now() + this.#beatMs;
    this.#timers.beat = this.#after(this.#beatMs, () => {
      const now = this.#o.clock.now();
      if (now - due > PROBE_TIMEOUT) { // the device slept: the connection may be dead
        this.#probe();
      } else if (now - this.#heard > 2.5 * this.#beatMs) {
        return this.#lost(1006, 'nothing was heard');
      } else {
        this.#write('{"msgType":1}');
      }
      this.#beatLater();
    });
  }

  #probe() {
    const asked = this.#o.clock.now();
    this.#write('{"msgType":1}');
    this.#timers.probe ??= this.#after(PROBE_TIMEOUT, () => {
      this.#timers.probe = null;
      if (this.#heard < asked) this.#lost(1006, 'no answer after a wake');
    });
  }

  // ---- sends ----

  /** Writes what may be under way, in order. */
  #pump() {
    if (this.#status.state !== 'online' || !this.#known) return;
    for (const e of this.#outbox.values()) {
      if (this.#inFlight >= WINDOW) break;
      if (e.sent) continue;
      e.sent = true;
      e.attempt++;
      this.#inFlight++;
      this.#write(e.frame);
      this.#emit('sending', { clientMsgId: e.id, attempt: e.attempt });
    }
    if (this.#inFlight > 0 && !this.#ackTimer) this.#awaitAck(this.#ackDelay);
  }

  /** Repeats everything that is under way, in order, unless an answer comes in time. */
  #awaitAck(ms) {
    this.#o.clock.clearTimeout(this.#ackTimer);
    this.#ackTimer = this.#after(ms, () => {
      this.#ackTimer = null;
      this.#ackDelay = Math.min(2 * this.#ackDelay, LONGEST_ACK);
      this.#inFlight = 0;
      for (const e of this.#outbox.values()) e.sent = false;
      this.#pump();
    });
  }

  /** The echo is the ack, wherever it is seen. */
  #ack(m) {
    if (m.sendUserId !== this.userId || !this.#isEcho(m)) return;
    const e = this.#take(m.clientMsgId);
    const stored = { convId: m.convId, seq: m.seq, ts: m.ts };
    this.#emit('stored', { clientMsgId: e.id, ...stored });
    e.resolve(stored);
    this.#pump();
  }

  /**
   * Whether a stored message is the send that waits under its id. Another one may have it:
   * an echo of what was sent under the id before can still come.
   */
  #isEcho(m) {
    const e = this.#outbox.get(m.clientMsgId);
    if (!e) return false;
    const own = JSON.parse(e.frame);
    return own.receivedUserId === m.receivedUserId && JSON.stringify(own.msgBody) === JSON.stringify(m.msgBody);
  }

  #refuse(id, code, reason) {
    const e = this.#take(id);
    if (!e) return;
    this.#emit('refused', { clientMsgId: id, code, reason });
    e.reject(new RefusedError(code, reason));
    this.#pump();
  }

  /** Takes a send out of the outbox: it is resolved. */
  #take(id) {
    const e = this.#outbox.get(id);
    if (!e) return null;
    this.#outbox.delete(id);
    if (e.sent) this.#inFlight--;
    this.#ackDelay = this.#o.ackTimeoutMs;
    this.#o.clock.clearTimeout(this.#ackTimer);
    this.#ackTimer = null;
    this.#outboxDirty = true;
    this.#saveSoon(SAVE_DELAY);
    return e;
  }

  /** What is larger than this gateway takes fails, also after a close with 1009; the rest goes on. */
  #refuseTooLarge() {
    for (const e of [...this.#outbox.values()]) {
      if (byteLength(e.frame) > this.#maxFrame) this.#refuse(e.id, 0, 'message is larger than the gateway takes');
    }
  }

  // ---- receiving ----

  #business(m) {
    if (m.code) return this.#refusal(m);
    if (m.bizType === QUERY && m.reqId) return this.#answer(m.reqId, m.msgBody ?? {}, null);
    if (typeof m.convId === 'string' && Number.isSafeInteger(m.seq) && m.seq > 0) this.#stored(m);
  }

  #refusal(m) {
    const permanent = m.code >= 1000 && m.code < 2000;
    const temporary = m.code >= 2000 && m.code < 3000;
    const ask = this.#asks.get(m.reqId);
    if (ask && permanent) {
      this.#answer(m.reqId, null, new RefusedError(m.code, m.reason ?? ''));
    } else if (ask && temporary) {
      this.#o.clock.clearTimeout(ask.timer);
      ask.timer = this.#after(m.retryAfterMs || ASK_TIMEOUT, () => this.#put(m.reqId));
    } else if (this.#outbox.has(m.clientMsgId) && permanent) {
      this.#refuse(m.clientMsgId, m.code, m.reason ?? '');
    } else if (this.#outbox.has(m.clientMsgId) && temporary) {
      this.#awaitAck(Math.max(this.#ackDelay, m.retryAfterMs ?? 0));
      this.#emit('delayed', { clientMsgId: m.clientMsgId, code: m.code, reason: m.reason ?? '', retryAfterMs: m.retryAfterMs ?? 0 });
    } else {
      this.#warn('refusal', new RefusedError(m.code, m.reason ?? ''));
    }
  }

  #stored(m) {
    this.#ack(m);
    if (this.#known) this.#accept(m);
    else this.#early.push(m);
  }

  #conv(convId) {
    let c = this.#convs.get(convId);
    if (!c) this.#convs.set(convId, c = { convId, next: 1, held: new Map(), beyond: false, repairing: false, timer: null });
    return c;
  }

  /** Drops what was handed over, hands over what is next, holds what is above. */
  #accept(m) {
    const c = this.#conv(m.convId);
    if (m.seq < c.next) return;
    if (m.seq > c.next) {
      if (c.held.size < MAX_HELD) c.held.set(m.seq, m);
      else c.beyond = true; // history has it
      this.#watch(c);
      return;
    }
    for (let next = m; next; next = c.held.get(c.next)) {
      c.held.delete(c.next);
      c.next++;
      this.#emit('message', this.#message(next));
    }
    if (!open(c)) this.#stopTimer(c);
    this.#saveSoon(SAVE_DELAY);
  }

  #watch(c) {
    if (c.timer || c.repairing || this.#catching || !open(c)) return;
    c.timer = this.#o.clock.setTimeout(() => { c.timer = null; this.#repair(c); }, this.#o.holdMs);
  }

  #watchHoles() {
    for (const c of this.#convs.values()) this.#watch(c);
  }

  #stopTimer(c) {
    this.#o.clock.clearTimeout(c.timer);
    c.timer = null;
  }

  /** Pulls what is missing from history. */
  async #repair(c) {
    c.repairing = true;
    for (let wait = this.#o.holdMs; open(c);) {
      let r;
      try {
        r = await this.#ask(HISTORY, { convId: c.convId, afterSeq: c.next - 1, limit: PAGE });
      } catch (err) { // never again: no longer this user's conversation, or the client is closed
        if (this.#closed) break;
        this.#warn('repair', err);
        c.beyond = false;
        if (c.held.size > 0) this.#skipTo(c, Math.min(...c.held.keys()));
        continue;
      }
      const list = r.messages ?? [];
      if (list.length > 0) this.#skipTo(c, list[0].seq);
      for (const m of list) this.#stored(m);
      if (!r.more) c.beyond = false;
      if (list.length === 0 && open(c)) { // it was announced, so it will be there
        await this.#pause(wait);
        wait = Math.min(2 * wait, MAX_RETRY);
      }
    }
    c.repairing = false;
    this.#settle();
  }

  #skipTo(c, seq) {
    if (seq <= c.next) return;
    this.#emit('skipped', { convId: c.convId, from: c.next, to: seq - 1 });
    c.next = seq;
    const m = c.held.get(seq);
    if (m) this.#accept(m);
  }

  /** A fresh client learns where the conversations end. */
  #baseline() {
    this.#catchUp(async () => {
      for (const e of await this.#ends()) this.#conv(e.convId).next = e.lastSeq + 1;
      this.#known = true;
      for (const m of this.#early.splice(0)) this.#accept(m);
    });
  }

  /** Pulls what was missed in all conversations. */
  #sync() {
    this.#catchUp(async () => {
      for (let more = true; more;) {
        const r = await this.#ask(SYNC, { cursors: this.#cursors(), limit: PAGE });
        const list = r.messages ?? [];
        for (const m of list) {
          this.#skipTo(this.#conv(m.convId), m.seq);
          this.#stored(m);
        }
        more = !!r.more && list.length > 0;
      }
    });
  }

  /** Works until it succeeds, and once more for each call that comes meanwhile. */
  async #catchUp(work) {
    this.#again = this.#catching;
    if (this.#catching) return;
    this.#catching = true;
    for (let wait = this.#o.holdMs; !this.#closed;) {
      try {
        await work();
        if (!this.#again) break;
        this.#again = false;
        work = () => this.#syncOneByOne();
      } catch (err) {
        this.#warn('sync', err);
        if (err.code === BODY_TOO_LARGE) work = () => this.#syncOneByOne(); // more cursors than a frame holds
        else await this.#pause(wait = Math.min(2 * wait, MAX_RETRY));
      }
    }
    this.#catching = false;
    this.#watchHoles();
    this.#settle();
    this.#emit('synced', {});
    this.#pump();
  }

  async #syncOneByOne() {
    for (const e of await this.#ends()) {
      const c = this.#conv(e.convId);
      if (e.lastSeq < c.next) continue;
      c.beyond = true;
      if (!c.repairing) await this.#repair(c);
    }
  }

  async #ends() {
    const ends = [];
    for (let cursor; ;) {
      const r = await this.#ask(CONVERSATIONS, { limit: PAGE, cursor });
      ends.push(...(r.conversations ?? []));
      if (!r.more || !r.cursor) return ends;
      cursor = r.cursor;
    }
  }

  #cursors() {
    return Object.fromEntries([...this.#convs].map(([id, c]) => [id, c.next - 1]));
  }

  /** Makes the newest token the safe one when nothing before it is missing. */
  #settle() {
    if (!this.#known || this.#catching || this.#safe === this.#latest || !this.#latest) return;
    for (const c of this.#convs.values()) if (open(c)) return;
    this.#safe = this.#latest;
    this.#saveSoon(SAVE_DELAY);
  }

  /** @returns {Message} */
  #message(m) {
    return { convId: m.convId, seq: m.seq, from: m.sendUserId, to: m.receivedUserId ?? '', clientMsgId: m.clientMsgId ?? '',
      ts: m.ts ?? 0, bizType: m.bizType ?? 0, bizOp: m.bizOptModule ?? 0, body: m.msgBody, own: m.sendUserId === this.userId };
  }

  // ---- questions ----

  /** Asks until there is an answer, across reconnects; timeoutMs 0 is for ever. */
  #ask(op, body, { peer, timeoutMs = 0 } = {}) {
    const id = `${this.#askPrefix}-${++this.#askCount}`;
    const frame = JSON.stringify({ msgType: BUSINESS, sendUserId: this.userId, receivedUserId: peer,
      bizType: QUERY, bizOptModule: op, reqId: id, msgBody: body });
    if (this.#closed) return Promise.reject(new RefusedError(0, 'client is closed'));
    return new Promise((resolve, reject) => {
      const q = { frame, resolve, reject, timer: null, delay: ASK_TIMEOUT, limit: null };
      if (timeoutMs > 0) {
        q.limit = this.#o.clock.setTimeout(() => this.#answer(id, null, new RefusedError(0, 'no answer in time')), timeoutMs);
      }
      this.#asks.set(id, q);
      this.#put(id);
    });
  }

  #put(id) {
    const q = this.#asks.get(id);
    if (!q || this.#status.state !== 'online') return;
    this.#write(q.frame);
    this.#o.clock.clearTimeout(q.timer);
    q.timer = this.#after(q.delay, () => this.#put(id));
    q.delay = Math.min(2 * q.delay, MAX_RETRY);
  }

  #answer(id, body, err) {
    const q = this.#asks.get(id);
    if (!q) return;
    this.#asks.delete(id);
    this.#o.clock.clearTimeout(q.timer);
    this.#o.clock.clearTimeout(q.limit);
    if (err) q.reject(err);
    else q.resolve(body);
  }

  // ---- saved state ----

  #restore() {
    const store = this.#o.storage;
    if (!store) return;
    try {
      const s = JSON.parse(store.getItem(this.#o.storageKey) ?? 'null');
      if (s?.v === 1) {
        for (const [id, seq] of Object.entries(s.cursors)) this.#conv(id).next = seq + 1;
        this.#safe = s.resume ?? '';
        this.#known = true;
      }
      for (const frame of JSON.parse(store.getItem(this.#o.storageKey + '/outbox') ?? '[]')) {
        const id = JSON.parse(frame).clientMsgId;
        this.#outbox.set(id, newEntry(id, frame));
      }
    } catch (err) {
      this.#warn('restore', err);
    }
  }

  /** ms 0: before the event loop goes on. */
  #saveSoon(ms) {
    if (!this.#o.storage) return;
    if (ms === 0) queueMicrotask(() => { if (this.#outboxDirty) this.flush(); });
    else this.#saving ??= this.#o.clock.setTimeout(() => this.flush(), ms);
  }

  #save() {
    const store = this.#o.storage;
    if (!store) return;
    try {
      if (this.#known) { // token and cursors in one write
        store.setItem(this.#o.storageKey, JSON.stringify({ v: 1, cursors: this.#cursors(), resume: this.#safe }));
      }
      if (this.#outboxDirty) {
        store.setItem(this.#o.storageKey + '/outbox', JSON.stringify([...this.#outbox.values()].map((e) => e.frame)));
        this.#outboxDirty = false;
      }
    } catch (err) {
      this.#warn('save', err);
    }
  }

  // ---- small things ----

  /** A timer that does nothing once this connection, or the attempt at it, is over. */
  #after(ms, fn) {
    const life = this.#life;
    return this.#o.clock.setTimeout(() => { if (life === this.#life) fn(); }, ms);
  }

  #pause(ms) { return new Promise((done) => { this.#o.clock.setTimeout(() => done(undefined), ms); }); }

  #setStatus(s) {
    this.#status = s;
    this.#emit('state', s);
  }

  #warn(step, err) {
    this.#emit('warning', new Error(`${step}: ${err?.message ?? err}`));
  }

  #emit(name, ev) {
    for (const fn of [...(this.#handlers.get(name) ?? [])]) {
      try { fn(ev); } catch (err) { queueMicrotask(() => { throw err; }); } // the page's error, not ours
    }
  }
}

/** Whether something is missing in front of what is known to exist. */
function open(c) { return c.held.size > 0 || c.beyond; }

function newEntry(id, frame) {
  const e = { id, frame, sent: false, attempt: 0, done: null, resolve: null, reject: null };
  e.done = new Promise((resolve, reject) => Object.assign(e, { resolve, reject }));
  e.done.catch(() => {}); // whoever does not look at it hears of `refused`
  return e;
}

function byteLength(text) { return new TextEncoder().encode(text).length; }

function uuid() {
  const c = /** @type {any} */ (globalThis).crypto;
  if (c.randomUUID) return c.randomUUID();
  const b = c.getRandomValues(new Uint8Array(16)); // RFC 9562, version 4
  b[6] = (b[6] & 0x0f) | 0x40;
  b[8] = (b[8] & 0x3f) | 0x80;
  const hex = [...b].map((x) => x.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
