/**
 * Tests of wirepost.js. They run in a browser and in Node alike: `run()` returns a line
 * for each failure.
 */
import { Client, RefusedError, afterClose } from '../wirepost.js';
import { FakeClock, FakeGateway, FakeStorage, settle } from './gateway.js';

const CHAT = (m) => m.msgType === 3 && m.bizType === 1;
const HISTORY = (m) => m.msgType === 3 && m.bizType === 2 && m.bizOptModule === 1;
const SYNC = (m) => m.msgType === 3 && m.bizType === 2 && m.bizOptModule === 3;
const LOGIN = (m) => m.msgType === 2;
const BEAT = (m) => m.msgType === 1;
const conv = 'd:alice:bob';

/** A gateway, a clock and two people. */
class World {
  gw = new FakeGateway();
  clock = new FakeClock();
  stores = new Map();
  tokens = 0;

  client(user, more = {}) {
    if (!this.stores.has(user)) this.stores.set(user, new FakeStorage());
    const c = new Client({ urls: ['ws://one', 'ws://two'], userId: user, deviceId: 'd1', WebSocket: this.gw.WebSocket, clock: this.clock,
      storage: this.stores.get(user), token: () => `token-${++this.tokens}`, ...more });
    c.seen = [];
    c.states = [];
    c.all = [];
    c.on('message', (m) => c.seen.push(m.seq));
    c.on('state', (s) => c.states.push(s));
    for (const k of ['stored', 'refused', 'delayed', 'skipped', 'notice', 'warning', 'synced']) c.on(k, (ev) => c.all.push([k, ev]));
    c.of = (k) => c.all.filter(([x]) => x === k).map(([, ev]) => ev);
    return c;
  }

  async online(user, more) {
    const c = this.client(user, more);
    c.connect();
    await settle();
    equal(c.status.state, 'online', `${user} is online`);
    return c;
  }

  saved(user) { return JSON.parse(this.stores.get(user).getItem(`wirepost/${user}/d1`)); }
  async later() { await this.clock.advance(200); } // long enough for cursors to be saved
}

function equal(got, want, what) {
  const a = JSON.stringify(got), b = JSON.stringify(want);
  if (a !== b) throw new Error(`${what}: ${a}, want ${b}`);
}

const tests = {
  async 'a send is stored, echoed to both, in order'(w) {
    const alice = await w.online('alice'), bob = await w.online('bob');
    const sends = ['a', 'b', 'c'].map((t) => alice.send('bob', { text: t }));
    await settle();
    equal(await Promise.all(sends.map((s) => s.stored.then((x) => x.seq))), [1, 2, 3], 'seqs');
    equal([alice.seen, bob.seen], [[1, 2, 3], [1, 2, 3]], 'messages');
    equal(alice.outbox, [], 'outbox');
  },

  async 'an echo of another body under the same id is no ack'(w) {
    const alice = await w.online('alice');
    await alice.send('bob', 'x', { clientMsgId: 'a-1' }).stored;
    w.gw.up = (_conn, m) => !CHAT(m);
    const second = alice.send('bob', 'y', { clientMsgId: 'a-1' });
    second.stored.catch(() => {});
    await settle();
    w.gw.store('alice', 'bob', 'a-1', 'x'); // the first one's echo once more
    await settle();
    equal(alice.outbox.map((e) => e.body), ['y'], 'outbox');
    w.gw.tell(w.gw.connOf('alice'), { msgType: 3, clientMsgId: 'a-1', code: 1008 });
    await settle();
    equal(alice.of('refused').map((e) => e.code), [1008], 'refused');
  },

  async 'a fresh client starts at the end, and misses nothing behind it'(w) {
    for (let i = 1; i <= 5; i++) w.gw.store('bob', 'alice', `old-${i}`, i);
    let held;
    w.gw.up = (conn, m) => (m.bizType === 2 ? (held = [conn, m], false) : true);
    const alice = await w.online('alice');
    const own = alice.send('bob', 'x');
    await settle();
    equal(w.gw.sent(CHAT).length, 0, 'sends before the baseline');
    w.gw.work(...held);
    w.gw.store('bob', 'alice', 'new', 6); // its echo comes before the baseline's answer is worked
    await settle();
    equal((await own.stored).seq, 7, 'own send');
    equal(alice.seen, [6, 7], 'messages');
  },

  async 'drops below, holds above, hands over in order'(w) {
    const alice = await w.online('alice');
    const late = [];
    w.gw.down = (conn, m) => (m.seq === 2 ? (late.push([conn, m]), false) : true);
    for (let i = 1; i <= 4; i++) w.gw.store('bob', 'alice', `m${i}`, i);
    await settle();
    equal(alice.seen, [1], 'before the missing one');
    w.gw.tell(...late[0]);
    w.gw.tell(...late[0]);
    await w.clock.advance(5_000);
    equal(alice.seen, [1, 2, 3, 4], 'messages');
    equal(w.gw.sent(HISTORY).length, 0, 'history reads');
  },

  async 'a hole is pulled from history after a second, and no token is saved meanwhile'(w) {
    const alice = await w.online('alice');
    w.gw.store('bob', 'alice', 'm1', 1);
    await w.later();
    equal(w.saved('alice'), { v: 1, cursors: { [conv]: 1 }, resume: 'e1.1' }, 'saved before');
    w.gw.down = (_c, m) => m.seq !== 2;
    for (let i = 2; i <= 4; i++) w.gw.store('bob', 'alice', `m${i}`, i);
    alice.wake(); // a heartbeat's token must not be saved either
    await w.clock.advance(900);
    equal(w.saved('alice'), { v: 1, cursors: { [conv]: 1 }, resume: 'e1.1' }, 'saved with a hole open');
    await w.clock.advance(400);
    equal(alice.seen, [1, 2, 3, 4], 'messages');
    equal(w.gw.sent(HISTORY).map((f) => f.m.msgBody.afterSeq), [1], 'history reads');
    equal(w.saved('alice'), { v: 1, cursors: { [conv]: 4 }, resume: 'e1.4' }, 'saved after');
  },

  async 'resumes with the saved token after a reload, each message once'(w) {
    const alice = await w.online('alice');
    w.gw.store('bob', 'alice', 'm1', 1);
    await w.later();
    alice.close();
    for (let i = 2; i <= 5; i++) w.gw.store('bob', 'alice', `m${i}`, i);
    const again = await w.online('alice');
    equal(w.gw.connOf('alice').login.msgBody.resume, 'e1.1', 'token of the login');
    equal([again.status.resumed, again.seen], [true, [2, 3, 4, 5]], 'messages');
    equal(w.gw.sent(SYNC).length + w.gw.sent(HISTORY).length, 0, 'reads of the store');
  },

  async 'a connection lost with a hole open resumes before the hole'(w) {
    const alice = await w.online('alice');
    w.gw.store('bob', 'alice', 'm1', 1);
    await settle();
    w.gw.down = (_c, m) => m.seq !== 2;
    for (let i = 2; i <= 4; i++) w.gw.store('bob', 'alice', `m${i}`, i);
    await settle();
    w.gw.down = () => true;
    w.gw.cut(1006);
    await w.clock.advance(600);
    equal(w.gw.connOf('alice').login.msgBody.resume, 'e1.1', 'token of the login');
    equal(alice.seen, [1, 2, 3, 4], 'messages');
  },

  async 'resumed:false pulls what was missed, page by page'(w) {
    const alice = await w.online('alice');
    w.gw.store('bob', 'alice', 'm1', 1);
    await w.later();
    w.gw.newEpoch();
    w.gw.cut(1006);
    for (let i = 2; i <= 8; i++) w.gw.store('bob', 'alice', `m${i}`, i);
    w.gw.store('carol', 'alice', 'c1', 1);
    await w.clock.advance(1_000);
    equal(alice.status.resumed, false, 'resumed');
    equal(alice.seen, [1, 2, 3, 4, 5, 6, 7, 8, 1], 'messages');
    equal(w.gw.sent(SYNC).length, 3, 'pages');
    equal(w.saved('alice').resume, 'e2.8', 'saved token');
  },

  async 'a resync notice pulls what was missed'(w) {
    const alice = await w.online('alice');
    w.gw.down = () => false;
    for (let i = 1; i <= 3; i++) w.gw.store('bob', 'alice', `m${i}`, i);
    w.gw.tell(w.gw.connOf('alice'), { resume: 'e1.3', msgType: 4, code: 3001 });
    await w.later();
    equal(alice.seen, [1, 2, 3], 'messages');
    equal([w.saved('alice').resume, w.saved('alice').cursors[conv]], ['e1.3', 3], 'saved');
  },

  async 'no token is saved before a sync is done'(w) {
    const alice = await w.online('alice');
    w.gw.store('bob', 'alice', 'm1', 1);
    await w.later();
    let held;
    w.gw.up = (conn, m) => (SYNC(m) ? (held = [conn, m], false) : true);
    w.gw.down = () => false;
    w.gw.store('bob', 'alice', 'm2', 2);
    w.gw.tell(w.gw.connOf('alice'), { msgType: 4, code: 3001 });
    alice.wake();
    await w.later();
    equal(w.saved('alice').resume, 'e1.1', 'saved during the sync');
    w.gw.work(...held);
    await w.later();
    equal([alice.seen, w.saved('alice').resume], [[1, 2], 'e1.2'], 'messages, saved after');
  },

  async 'a resync notice before the baseline is there is not forgotten'(w) {
    let held;
    w.gw.up = (conn, m) => (m.bizType === 2 && !held ? (held = [conn, m], false) : true);
    const alice = await w.online('alice');
    w.gw.work(...held); // the answer is on its way: no conversation yet
    w.gw.down = () => false;
    w.gw.store('bob', 'alice', 'm1', 1);
    alice.on('synced', () => {});
    w.gw.connOf('alice').onmessage({ data: '{"msgType":4,"code":3001}' });
    await w.clock.advance(5_000);
    equal(alice.seen, [1], 'messages');
  },

  async 'a token that expires is refreshed on the same connection'(w) {
    const alice = await w.online('alice');
    w.gw.tell(w.gw.connOf('alice'), { msgType: 4, code: 3002, retryAfterMs: 30_000 });
    await settle();
    equal(w.gw.sent(LOGIN).map((f) => f.m.msgBody.token), ['token-1', 'token-2'], 'logins');
    equal([w.gw.dials.length, alice.states.length], [1, 2], 'dials and states');
  },

  async 'a lost ack is retried with identical bytes and resolves with the first seq'(w) {
    const alice = await w.online('alice');
    w.gw.down = () => false;
    const s = alice.send('bob', { text: 'once', n: 1.5 });
    await settle();
    w.gw.down = () => true;
    await w.clock.advance(10_000);
    equal((await s.stored).seq, 1, 'seq');
    const texts = w.gw.sent(CHAT).map((f) => f.text);
    equal([texts.length, new Set(texts).size, w.gw.convs.get(conv).length], [2, 1, 1], 'frames, different ones, stored');
  },

  async 'retries keep the order of sends'(w) {
    const alice = await w.online('alice');
    let first = true;
    w.gw.up = (_c, m) => !(CHAT(m) && first);
    for (let i = 1; i <= 4; i++) alice.send('bob', i);
    await settle();
    first = false;
    await w.clock.advance(10_000);
    equal(w.gw.convs.get(conv).map((m) => m.msgBody), [1, 2, 3, 4], 'history');
  },

  async 'the outbox survives a reload and goes out with the same bytes, once'(w) {
    const alice = await w.online('alice');
    w.gw.up = (_c, m) => !CHAT(m);
    alice.send('bob', { text: 'kept' });
    await settle();
    alice.close();
    w.gw.up = () => true;
    const again = await w.online('alice');
    equal(again.of('stored').map((x) => x.seq), [1], 'stored');
    const texts = w.gw.sent(CHAT).map((f) => f.text);
    equal([texts.length, new Set(texts).size], [2, 1], 'frames and different ones');
    equal(JSON.parse(w.stores.get('alice').getItem('wirepost/alice/d1/outbox')), [JSON.parse(JSON.stringify(texts[0]))], 'outbox until it is saved');
    await w.later();
    equal(w.stores.get('alice').getItem('wirepost/alice/d1/outbox'), '[]', 'saved outbox');
  },

  async 'sends while offline wait and leave in order'(w) {
    const alice = await w.online('alice'), bob = await w.online('bob');
    alice.disconnect();
    for (let i = 0; i < 200; i++) alice.send('bob', i);
    await w.clock.advance(60_000);
    equal([w.gw.sent(CHAT).length, alice.outbox.length], [0, 200], 'frames, outbox');
    alice.connect();
    await w.later();
    equal(w.gw.convs.get(conv).map((m) => m.msgBody), [...Array(200).keys()], 'history');
    equal(bob.seen.length, 200, 'messages');
  },

  async 'the table of close codes'(w) {
    const again = [1000, 1001, 1006, 1009, 1011, 1015, 3999, 4000, 4001, 4408, 4429, 4499], stop = [1002, 1003, 1007, 4500, 4501, 4999];
    for (const c of again) equal(afterClose(c), { again: true, newToken: false }, c);
    for (const c of stop) equal(afterClose(c), { again: false, newToken: false }, c);
    equal(afterClose(4401), { again: true, newToken: true }, '4401');
    const alice = await w.online('alice');
    w.gw.cut(4401);
    await w.clock.advance(600);
    equal(w.gw.sent(LOGIN).map((f) => f.m.msgBody.token), ['token-1', 'token-2'], 'a new token after 4401');
    w.gw.cut(4501);
    await w.clock.advance(60_000);
    equal([alice.status.state, alice.status.code, w.gw.dials.length], ['stopped', 4501, 2], 'stopped');
  },

  async 'backoff doubles to its ceiling, is random below it, and starts again when steady'(w) {
    w.gw.accept = () => false;
    const alice = w.client('alice', { minBackoffMs: 500, maxBackoffMs: 3_000 });
    alice.connect();
    await w.clock.advance(9_000);
    const waits = () => alice.states.filter((s) => s.state === 'waiting').map((s) => s.retryInMs);
    equal(waits().slice(0, 5), [500, 1000, 2000, 3000, 3000], 'ceilings');
    w.clock.jitter = 0.25;
    await w.clock.advance(3_000);
    equal(waits().at(-1), 750, 'a random part');
    w.gw.accept = () => true;
    await w.clock.advance(10_000);
    equal(alice.status.state, 'online', 'state');
    w.clock.jitter = 1;
    w.gw.cut(1006);
    equal(waits().at(-1), 500, 'after being steady');
    equal(new Set(w.gw.dials).size, 2, 'both addresses are tried');
  },

  async 'no login reply in time is a lost connection'(w) {
    w.gw.checkToken = () => { throw new Error('never answers'); };
    const alice = w.client('alice');
    alice.connect();
    await settle();
    await w.clock.advance(10_100);
    equal(alice.states.at(-1).state === 'offline', false, 'goes on');
    equal(alice.states.some((s) => s.state === 'waiting' && s.code === 1006), true, 'waits for the next attempt');
  },

  async 'a token callback that fails is tried again'(w) {
    let n = 0;
    const alice = w.client('alice', { token: () => { if (++n < 3) throw new Error('no'); return 't'; } });
    alice.connect();
    await w.clock.advance(2_000);
    equal([alice.status.state, n, alice.of('warning').length], ['online', 3, 2], 'state, calls, warnings');
  },

  async 'a token of somebody else stops'(w) {
    w.gw.login = { userId: 'mallory' };
    const alice = w.client('alice');
    alice.connect();
    await settle();
    equal(alice.status.state, 'stopped', 'state');
  },

  async 'drain advice moves the connection at a random moment within it'(w) {
    const alice = await w.online('alice');
    w.clock.jitter = 0.5;
    w.gw.tell(w.gw.connOf('alice'), { msgType: 4, code: 3000, retryAfterMs: 4_000 });
    await w.clock.advance(1_900);
    equal(w.gw.dials, ['ws://one'], 'before');
    await w.clock.advance(200);
    equal([w.gw.dials, alice.status.state], [['ws://one', 'ws://two'], 'online'], 'after');
  },

  async 'heartbeats, and a connection that goes silent is left'(w) {
    const alice = await w.online('alice');
    await w.clock.advance(75_500);
    equal(w.gw.sent(BEAT).length, 3, 'heartbeats');
    equal(w.saved('alice').resume, 'e1.0', 'token of a heartbeat');
    w.gw.up = () => false;
    await w.clock.advance(100_000);
    equal(alice.states.some((s) => s.state === 'waiting' && s.code === 1006), true, 'left');
  },

  async 'a wake asks at once, reconnects at once, and finds a dead connection'(w) {
    const alice = await w.online('alice');
    alice.wake();
    await settle();
    equal(w.gw.sent(BEAT).length, 1, 'heartbeat');
    w.gw.accept = () => false;
    w.gw.cut(1006);
    await w.clock.advance(20_000);
    w.gw.accept = () => true;
    alice.wake();
    await settle();
    equal(alice.status.state, 'online', 'after a wake while waiting');
    w.gw.up = () => false;
    w.clock.ms += 5_000;
    alice.wake();
    await w.clock.advance(5_000);
    equal(alice.states.at(-1).state, 'waiting', 'a dead connection');
  },

  async 'a refusal is final, advice is not'(w) {
    const alice = await w.online('alice');
    w.gw.up = (conn, m) => {
      if (!CHAT(m)) return true;
      if (m.msgBody === 'bad') w.gw.tell(conn, { msgType: 3, clientMsgId: m.clientMsgId, code: 1005, reason: 'no' });
      else if (w.clock.ms % 100_000 < 12_000) w.gw.tell(conn, { msgType: 3, clientMsgId: m.clientMsgId, code: 2000, reason: 'away', retryAfterMs: 3_000 });
      else return true;
      return false;
    };
    const bad = alice.send('x y', 'bad'), good = alice.send('bob', 'good');
    let err;
    bad.stored.catch((e) => { err = e; });
    await settle();
    equal([err instanceof RefusedError, err?.code, alice.outbox.length], [true, 1005, 1], 'refused');
    equal(alice.of('delayed').length, 1, 'advice');
    await w.clock.advance(40_000);
    equal((await good.stored).seq, 1, 'stored in the end');
  },

  async 'what is larger than the gateway takes is refused, the rest goes on'(w) {
    const alice = await w.online('alice');
    alice.send('bob', 'x'.repeat(3_000));
    alice.send('bob', 'small');
    await settle();
    equal([alice.of('refused').length, alice.of('stored').length], [1, 1], 'refused, stored');
    w.gw.login = { maxFrame: 1_000 };
    w.gw.up = () => false;
    alice.send('bob', 'y'.repeat(1_500)); // taken by the first edge, too large for the next
    alice.send('bob', 'fine');
    await settle();
    w.gw.up = () => true;
    w.gw.cut(1009);
    await w.clock.advance(600);
    equal([alice.of('refused').length, alice.of('stored').length], [2, 2], 'refused, stored after 1009');
  },

  async 'a question goes on across a reconnect, and ends in time'(w) {
    const alice = await w.online('alice');
    w.gw.store('bob', 'alice', 'm1', 'hi');
    w.gw.up = () => false;
    const page = alice.history({ peer: 'bob' });
    await settle();
    w.gw.up = () => true;
    w.gw.cut(4000);
    await w.clock.advance(600);
    equal((await page).messages.map((m) => m.body), ['hi'], 'page');
    w.gw.up = () => false;
    let failed = '';
    alice.conversations().catch((e) => { failed = e.message; });
    await w.clock.advance(31_000);
    equal(failed, 'no answer in time', 'error');
  },

  async 'history that no longer holds a message is said, not hidden'(w) {
    const alice = await w.online('alice');
    w.gw.down = (_c, m) => m.seq > 3;
    for (let i = 1; i <= 4; i++) w.gw.store('bob', 'alice', `m${i}`, i);
    w.gw.convs.set(conv, w.gw.convs.get(conv).slice(2)); // 1 and 2 are gone for good
    await w.clock.advance(2_000);
    equal([alice.seen, alice.of('skipped')], [[3, 4], [{ convId: conv, from: 1, to: 2 }]], 'messages, skipped');
  },

  async 'more cursors than a frame holds: sync conversation by conversation'(w) {
    const alice = await w.online('alice');
    w.gw.store('bob', 'alice', 'm1', 1);
    await settle();
    w.gw.down = () => false;
    for (let i = 2; i <= 5; i++) w.gw.store('bob', 'alice', `m${i}`, i);
    w.gw.up = (conn, m) => {
      if (!SYNC(m)) return true;
      w.gw.tell(conn, { msgType: 3, reqId: m.reqId, code: 1006, reason: 'too large' });
      return false;
    };
    w.gw.tell(w.gw.connOf('alice'), { msgType: 4, code: 3001 });
    await w.clock.advance(1_000);
    equal(alice.seen, [1, 2, 3, 4, 5], 'messages');
  },

  async 'unknown things are ignored'(w) {
    const alice = await w.online('alice');
    const conn = w.gw.connOf('alice');
    for (const m of [{ msgType: 9 }, { msgType: 3, bizType: 77 }, { msgType: 4, code: 3999 }, { msgType: 3, code: 1042 }, null, 7, 'x', { msgType: 3, convId: 'c', seq: -1 }]) w.gw.tell(conn, m);
    conn.onmessage({ data: 'not json' });
    await settle();
    equal([alice.status.state, alice.seen], ['online', []], 'state, messages');
  },
};

/** @returns {Promise<{passed: string[], failed: string[]}>} */
export async function run() {
  const passed = [], failed = [];
  for (const [name, fn] of Object.entries(tests)) {
    try {
      await fn(new World());
      passed.push(name);
    } catch (err) {
      failed.push(`${name}: ${err.stack ?? err}`);
    }
  }
  return { passed, failed };
}
