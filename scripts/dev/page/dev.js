/** What the development server offers to this page; see scripts/dev/web.go. */

/**
 * @typedef {object} SystemStatus
 * @property {string} system      the data folder's own id: saved state of another one is worthless
 * @property {{n: number, name: string, url: string, admin: string, up: boolean}[]} edges
 * @property {{paused: boolean, admin: string}} worker
 */

async function call(method, path, body) {
  const res = await fetch(path, { method, headers: body ? { 'Content-Type': 'application/json' } : undefined, body: body && JSON.stringify(body) });
  if (!res.ok) throw new Error(`${path}: ${res.status} ${(await res.text()).trim()}`);
  return res.status === 204 ? null : res.json();
}

/** @returns {Promise<SystemStatus>} */
export const status = () => call('GET', '/dev/status');
/** @returns {Promise<string>} a token for anybody */
export const token = async (user) => (await call('POST', '/dev/token', { user })).token;
export const crash = (n) => call('POST', `/dev/edges/${n}/crash`);
export const pause = () => call('POST', '/dev/worker/pause');
export const resume = () => call('POST', '/dev/worker/resume');
export const trace = (user, cid) => call('GET', `/dev/trace?user=${encodeURIComponent(user)}&cid=${encodeURIComponent(cid)}`);

/** Unix milliseconds with a fraction, as long as the two clocks of the browser agree. */
export function now() {
  const fine = performance.timeOrigin + performance.now(), coarse = Date.now();
  return Math.abs(fine - coarse) < 20 ? fine : coarse;
}
