// Requests to the server. Tokens are kept for this tab only, and go to the page's own origin only.

const BASE = new URL('api/v1/', document.baseURI);
const READING = 'varta-reading', ACTING = 'varta-acting';
const WITHIN_MS = 15000;
/** The most characters of metrics that are read. */
const MAX_METRICS = 256 << 10;

/** An answer that says what is wrong. */
export class Refusal extends Error {
  /** @param {number} status @param {string} detail */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** The server could not be reached, or did not answer in time. */
export class Unreachable extends Error {}

/** What the page does when the server asks who is there. Set by the page. */
export const ask = {
  /** @type {(wrong: boolean) => Promise<void>} */ reading: async () => {},
  /** @type {(wrong: boolean) => Promise<boolean>} */ acting: async () => false,
};

/** The value of the header that opens the server for reading: a token, or a name with a password. */
export function keepReading(name, secret) {
  const utf8 = String.fromCharCode(...new TextEncoder().encode(`${name}:${secret}`));
  sessionStorage.setItem(READING, name ? `Basic ${btoa(utf8)}` : `Bearer ${secret}`);
}

/** @param {string} token */
export const keepActing = (token) => sessionStorage.setItem(ACTING, `Bearer ${token}`);

/** Whether this tab has shown a token that acts. */
export const canAct = () => sessionStorage.getItem(ACTING) !== null;

/** Forgets both. */
export function forgetTokens() {
  sessionStorage.removeItem(READING);
  sessionStorage.removeItem(ACTING);
}

/** How much the server's clock is ahead of this one, in ms. */
let ahead = 0;

/** The time as the server has it, in ms since 1970. */
export const serverNow = () => Date.now() + ahead;

/** @type {Promise<void>|null} */
let asking = null;

/**
 * Sends a request, and asks for a token as often as one is wanted.
 * @param {URL} url @param {RequestInit} options
 */
async function send(url, options) {
  for (;;) {
    const shown = sessionStorage.getItem(READING);
    const headers = { ...(shown ? { Authorization: shown } : {}), ...options.headers };
    let response;
    try {
      // Without credentials of the browser's own: it would ask for a password in a window that hides the page.
      response = await fetch(url, { ...options, headers, credentials: 'omit', redirect: 'error', cache: 'no-cache' });
    } catch (error) {
      if (options.signal?.aborted && options.signal.reason?.name !== 'TimeoutError') throw error;
      throw new Unreachable('the server cannot be reached');
    }
    if (response.status !== 401 || headers.Authorization !== (shown ?? undefined)) return response;
    if (sessionStorage.getItem(READING) !== shown) continue;
    asking ??= ask.reading(shown !== null).finally(() => { asking = null; });
    await asking;
    options.signal?.throwIfAborted();
  }
}

/** @param {Response} response */
async function refusal(response) {
  let detail = `the server answered with status ${response.status}`;
  try {
    const told = await response.json();
    detail = told.detail ?? told.title ?? detail;
  } catch { /* The status says enough. */ }
  return new Refusal(response.status, String(detail));
}

/** @param {string} path below `/api/v1/` @param {Record<string, any>|URLSearchParams} parameters */
function address(path, parameters) {
  const url = new URL(path, BASE);
  if (parameters instanceof URLSearchParams) url.search = parameters.toString();
  else {
    for (const [key, value] of Object.entries(parameters)) {
      if (value !== null && value !== undefined && value !== '') url.searchParams.set(key, String(value));
    }
  }
  return url;
}

/**
 * Reads JSON.
 * @param {string} path @param {Record<string, any>|URLSearchParams} [parameters] @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function get(path, parameters = {}, signal) {
  const limit = AbortSignal.timeout(WITHIN_MS);
  const response = await send(address(path, parameters), { signal: signal ? AbortSignal.any([signal, limit]) : limit });
  if (!response.ok) throw await refusal(response);
  try {
    const told = await response.json();
    const now = Date.parse(told.now);
    if (now) ahead = now - Date.now();
    return told;
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable('the answer of the server ended early');
  }
}

/** Whether the server is ready, and its faults, a line each. @returns {Promise<{ready: boolean, faults: string[]}>} */
export async function readiness() {
  const response = await send(new URL('readyz', document.baseURI), { signal: AbortSignal.timeout(WITHIN_MS) });
  if (response.status !== 200 && response.status !== 503) throw await refusal(response);
  const [, ...faults] = (await response.text()).split('\n').filter(Boolean);
  return { ready: response.ok, faults };
}

/**
 * What the server counts of itself: sums of families by their name, and of those of one outcome by `name/outcome`. The rows of
 * agents, which come after all families, are not read.
 * @returns {Promise<Map<string, number>>}
 */
export async function metrics() {
  const response = await send(new URL('metrics', document.baseURI), { signal: AbortSignal.timeout(WITHIN_MS) });
  if (!response.ok || !response.body) throw await refusal(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  while (text.length < MAX_METRICS) {
    const { done, value } = await reader.read();
    if (done) break;
    text += value;
  }
  reader.cancel().catch(() => {});
  const sums = new Map();
  const add = (name, value) => sums.set(name, (sums.get(name) ?? 0) + value);
  for (const [, name, labels = '', value] of text.matchAll(/^([a-z_]+)(\{.*\})? ([0-9.e+-]+)$/gm)) {
    add(name, Number(value));
    const outcome = labels.match(/outcome="([a-z_]+)"/);
    if (outcome) add(`${name}/${outcome[1]}`, Number(value));
  }
  return sums;
}

/** Opens the stream. @param {string|null} since a revision @param {AbortSignal} signal @returns {Promise<Response>} */
export async function openStream(since, signal) {
  const response = await send(address('stream', {}), { signal, headers: since ? { 'Last-Event-ID': since } : {} });
  if (!response.ok || !response.body) throw await refusal(response);
  return response;
}

/**
 * Does something, with the token that acts; asks for it where it is missing or wrong. `null` when the user gives none.
 * @param {'POST'|'DELETE'} method @param {string} path @param {Record<string, any>} parameters @param {any} [body]
 * @returns {Promise<any>}
 */
export async function act(method, path, parameters, body) {
  for (let wrong = false; ; wrong = true) {
    if ((wrong || !canAct()) && !(await ask.acting(wrong))) return null;
    const headers = { Authorization: sessionStorage.getItem(ACTING) ?? '' };
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    const response = await send(address(path, parameters),
      { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal: AbortSignal.timeout(WITHIN_MS) });
    if (response.ok) return response.json();
    const why = await refusal(response);
    if (why.status !== 401 && why.status !== 403) throw why;
    sessionStorage.removeItem(ACTING);
  }
}
