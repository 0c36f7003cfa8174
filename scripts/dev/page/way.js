import * as dev from './dev.js';

/**
 * The way of a message. The stations between the sockets are observed by the development
 * process; both ends are this browser's own. It is one machine, so one clock.
 */

const MARKS = 5_000; // messages whose ends are remembered

/** When this page's panes sent and received a message. */
export class Marks {
  #map = new Map();

  #of(cid) {
    let m = this.#map.get(cid);
    if (!m) {
      this.#map.set(cid, m = { sent: 0, got: {} });
      if (this.#map.size > MARKS) this.#map.delete(this.#map.keys().next().value);
    }
    return m;
  }

  /** The first time counts: a retry is on its way since then. */
  sent(cid) { const m = this.#of(cid); m.sent ||= dev.now(); }
  got(cid, user) { const m = this.#of(cid); m.got[user] ||= dev.now(); }
  get(cid) { return this.#map.get(cid) ?? { sent: 0, got: {} }; }
}

/** The stations of a message in the order of time: [{at, what, more}]. */
function stations(t, mark) {
  const list = [];
  const add = (at, what, more = '', end = false) => { if (at) list.push({ at, what, more, end }); };
  add(mark.sent, 'written to the socket', 'this browser');
  if (t.found) {
    // The edge's word is in whole milliseconds: what is known better bounds it.
    add(Math.min(Math.max(t.edgeAt, mark.sent), t.publishedAt), t.edge, 'has the whole frame');
    add(t.jetStreamAt, 'JetStream', `stored as ${t.stream} ${t.streamSeq}`);
    add(t.fetchedAt, 'worker', 'has it');
    add(t.storeAt, 'store', 'committed');
    for (const d of t.downs) add(d.at, 'downlink', `stored for ${d.user}`);
  }
  for (const [user, at] of Object.entries(mark.got)) add(at, `${user}’s socket`, 'this browser', true);
  return list.sort((a, b) => a.at - b.at);
}

/**
 * Draws the way of a message.
 * @param {string} user who sent it
 * @param {string} cid
 * @param {Marks} marks
 * @returns {Promise<HTMLElement>}
 */
export async function draw(user, cid, marks) {
  const box = document.createElement('div');
  box.className = 'way';
  let t;
  try {
    t = await dev.trace(user, cid);
  } catch {
    t = { found: false, gone: true };
  }
  const list = stations(t, marks.get(cid));
  const title = box.appendChild(document.createElement('h3'));
  if (!t.found && list.length < 2) {
    title.textContent = 'The way of this message';
    const p = box.appendChild(document.createElement('p'));
    p.className = 'none';
    p.textContent = t.gone ? 'The development process does not answer.' : 'It was sent before the development process, or this page, began to watch.';
    return box;
  }
  const start = list[0].at, total = Math.max(list.at(-1).at - start, 1);
  title.textContent = `Its way took ${ms(total)}`;
  const ol = box.appendChild(document.createElement('ol'));
  list.forEach((s, i) => ol.appendChild(station(s, i ? list[i - 1].at : start, start, total)));
  if (t.attempts > 1) {
    const p = box.appendChild(document.createElement('p'));
    p.className = 'note';
    p.textContent = `It came to an edge ${t.attempts} times, under one clientMsgId, and is stored once.`;
  }
  return box;
}

function station(s, before, start, total) {
  const li = document.createElement('li');
  if (s.end) li.className = 'end';
  const at = li.appendChild(document.createElement('span'));
  at.className = 'at';
  at.textContent = s.at === start ? '0' : `+${ms(s.at - start)}`;
  const what = li.appendChild(document.createElement('span'));
  what.className = 'what';
  what.appendChild(document.createElement('b')).textContent = s.what;
  what.append(' ');
  what.appendChild(document.createElement('span')).textContent = s.more;
  const bar = li.appendChild(document.createElement('span'));
  bar.className = 'bar';
  const fill = bar.appendChild(document.createElement('i'));
  fill.style.left = `${(100 * (before - start)) / total}%`;
  fill.style.width = `${(100 * (s.at - before)) / total}%`;
  return li;
}

function ms(x) {
  if (x >= 10_000) return `${(x / 1000).toFixed(1)} s`;
  return `${x.toFixed(x < 100 ? 1 : 0)} ms`;
}
