// The stream of changes: server-sent events, read by fetch, because an EventSource cannot show a token.

import { openStream, Refusal } from './api.js';

/** Silence after which a connection counts as lost; the server says something every 15 s. */
const SILENCE_MS = 40000;
/** The longest time for a new connection to say its first word. */
const OPENED_MS = 8000;
/** A connection that ends sooner is no reason to open the next one at once. */
const SHORT_MS = 1000;
const FIRST_PAUSE_MS = 250, LAST_PAUSE_MS = 8000;
/** The most characters of one event. */
const MAX_EVENT = 4 << 20;
const STOPPED = new Error('stopped');

/**
 * Splits a stream into events.
 * @param {ReadableStream<Uint8Array>} body @param {() => void} alive called with each piece
 * @returns {AsyncGenerator<{id: string|null, event: string, data: string}>}
 */
export async function* events(body, alive) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '', id = null, event = '', data = [], length = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      const lines = (rest + value).split('\n');
      rest = lines.pop() ?? '';
      for (const ended of lines) {
        const line = ended.endsWith('\r') ? ended.slice(0, -1) : ended;
        length += line.length;
        if (line === '') {
          if (data.length) yield { id, event: event || 'message', data: data.join('\n') };
          event = '', data = [], length = 0;
        } else if (line.startsWith('data:')) data.push(line.slice(line[5] === ' ' ? 6 : 5));
        else if (line.startsWith('event:')) event = line.slice(6).trim();
        else if (line.startsWith('id:')) id = line.slice(3).trim();
      }
      if (length + rest.length > MAX_EVENT) throw new Error('an event without an end');
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** `polling`: the server is there, and has no stream for this page. @typedef {'live'|'connecting'|'polling'|'lost'} Link */

/** Keeps a stream open, and opens it again whenever it ends. */
export class Stream {
  /** The last revision that came. @type {string|null} */
  revision = null;
  #wake = () => {};
  /** @type {AbortController|null} */
  #open = null;
  #isWanted = false;
  #isRunning = false;

  /**
   * @param {{event: (event: string, data: any, id: string|null) => void, state: (state: Link, next: number) => void, alive: () => void}} told
   */
  constructor(told) {
    this.told = told;
  }

  /** @param {string|null} revision from which on changes are wanted */
  start(revision) {
    this.revision = revision;
    this.#isWanted = true;
    if (!this.#isRunning) this.#run();
  }

  /** Ends the connection, and opens no other one. */
  stop() {
    this.#isWanted = false;
    this.#open?.abort(STOPPED);
    this.#wake();
  }

  /** Tries at once, where it waits to try again. */
  hurry() {
    this.#wake();
  }

  /** Ends the connection, which may be dead without a sign, and opens another. */
  renew() {
    this.#open?.abort(new Error('renewed'));
    this.#wake();
  }

  async #run() {
    this.#isRunning = true;
    for (let failures = 0; this.#isWanted; ) {
      this.#open = new AbortController();
      const { signal } = this.#open;
      let guard = 0;
      const alive = (limit = SILENCE_MS) => {
        clearTimeout(guard);
        guard = setTimeout(() => this.renew(), limit);
      };
      let since = Infinity, isRefused = false;
      try {
        alive(OPENED_MS);
        const response = await openStream(this.revision, signal);
        for await (const { id, event, data } of events(response.body, () => { alive(); this.told.alive(); })) {
          // What was cut off may have left something behind.
          signal.throwIfAborted();
          const value = JSON.parse(data);
          if (event === 'hello') {
            failures = 0;
            since = performance.now();
            this.told.state('live', 0);
          }
          this.told.event(event, value, id);
          if (id) this.revision = id;
        }
      } catch (error) {
        // Whatever it was, the stream is opened again below.
        isRefused = error instanceof Refusal;
      }
      clearTimeout(guard);
      this.#open.abort(signal.reason);
      if (signal.reason === STOPPED) continue;
      // A server that hands over to another one ends the stream, and the other is there at once.
      if (performance.now() - since > SHORT_MS) {
        this.told.state('connecting', 0);
        continue;
      }
      failures += 1;
      const pause = Math.min(LAST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (failures - 1)) * (0.75 + Math.random() / 2);
      this.told.state(isRefused ? 'polling' : 'lost', performance.now() + pause);
      await new Promise((wake) => {
        const timer = setTimeout(wake, pause);
        this.#wake = () => { clearTimeout(timer); wake(undefined); };
      });
      this.#wake = () => {};
    }
    this.#isRunning = false;
  }
}
