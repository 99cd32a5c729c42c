// One stream for all tabs of a browser. It opens six connections to one address, and a stream keeps one for good: with a stream for each
// tab the seventh waits for ever. The tab that was shown last has the stream and passes on what comes. When that one is closed, hidden or
// silent, another tab takes the stream over at the revision to which it has come. No lock of the browser is used: where a page comes over
// plain HTTP from another host, there are none.

import { Stream } from './stream.js';

/** Silence of the tab with the stream after which another takes it over; the server says something every 15 s. */
const SILENCE_MS = 25000;
/** What is passed on says that the tab with the stream is there; where nothing is, that is said this often. */
const SAID_EVERY_MS = 5000;
/** How long a tab that is not shown waits for the one with the stream to answer. */
const ANSWER_MS = 1000;
/** Tabs that are not shown take over one after the other, so that the first is heard by the others. */
const SPREAD_MS = 1000;

/** A tab's claim to the stream: when it was made, and by whom. The latest counts. @typedef {[number, string]} Claim */

/** @param {Claim|null} one @param {Claim|null} other */
function compared(one, other) {
  if (!one || !other) return Number(Boolean(one)) - Number(Boolean(other));
  return one[0] - other[0] || (one[1] > other[1] ? 1 : one[1] < other[1] ? -1 : 0);
}

/** The parts of a revision. @param {string|null} revision @returns {[string, number]} */
export function parts(revision) {
  const cut = revision?.lastIndexOf('-') ?? -1;
  return cut < 0 ? ['', 0] : [revision.slice(0, cut), Number(revision.slice(cut + 1))];
}

const isShown = () => document.visibilityState === 'visible';

/** The stream as a tab has it, whoever reads it. */
export class SharedStream {
  /** The last revision that came. @type {string|null} */
  #revision = null;
  #name = crypto.getRandomValues(new Uint32Array(4)).join('-');
  /** The latest claim of all tabs. @type {Claim|null} */
  #claim = null;
  #hasStarted = false;
  #timer = 0;
  /** What a tab is told that comes later. @type {{state: import('./stream.js').Link, next: number}|null} */
  #link = null;
  /** @type {any} */
  #hello = null;
  #saidAt = -Infinity;

  /**
   * @param {{event: (event: string, data: any, id: string|null) => void, state: (state: import('./stream.js').Link, next: number) => void}} told
   */
  constructor(told) {
    this.told = told;
    this.own = new Stream({
      event: (event, data, id) => {
        this.#send('event', { event, data, id });
        this.#take(event, data, id);
      },
      state: (state, next) => {
        this.#state(state, next);
        this.#tell();
      },
      alive: () => { if (performance.now() - this.#saidAt > SAID_EVERY_MS) this.#send('alive', { revision: this.#revision }); },
    });
    // Servers that a proxy has below one address have a channel each.
    this.channel = new BroadcastChannel(`varta ${new URL('.', document.baseURI).pathname}`);
    this.channel.onmessage = ({ data }) => this.#heard(data);
    document.addEventListener('visibilitychange', () => {
      if (!this.#hasStarted) return;
      if (isShown()) this.#lead();
      else this.#leave(false);
    });
    addEventListener('pagehide', () => this.#leave(true));
    addEventListener('pageshow', (event) => { if (event.persisted && this.#hasStarted) this.#lead(); });
  }

  get #leads() {
    return this.#claim?.[1] === this.#name;
  }

  /** @param {string|null} revision from which on changes are wanted */
  start(revision) {
    this.#revision = revision;
    this.#hasStarted = true;
    if (isShown()) return this.#lead();
    this.#send('ask');
    this.#leadAfter(ANSWER_MS);
  }

  /** Tries at once, where it waits to try again. */
  hurry() {
    if (this.#leads) this.own.hurry();
    else this.#send('hurry');
  }

  /** Ends the connection, which may be dead without a sign, and opens another. */
  renew() {
    if (this.#leads) this.own.renew();
    else this.#send('renew');
  }

  /** Takes the stream over. */
  #lead() {
    clearTimeout(this.#timer);
    if (this.#leads) return;
    this.#claim = [Math.max(Date.now(), (this.#claim?.[0] ?? 0) + 1), this.#name];
    this.#tell();
    this.own.start(this.#revision);
  }

  /** @param {number} within */
  #leadAfter(within) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#lead(), within * (1 + Math.random() / 2));
  }

  /** Others may have the stream; one that is shown takes it, and if this tab ends, any. @param {boolean} isEnd */
  #leave(isEnd) {
    if (this.#leads) this.#send('left', { isEnd });
    if (!isEnd) return;
    clearTimeout(this.#timer);
    this.own.stop();
    if (this.#leads) this.#claim = null;
  }

  /** @param {string} kind @param {Record<string, any>} [more] */
  #send(kind, more = {}) {
    this.#saidAt = performance.now();
    this.channel.postMessage({ kind, claim: this.#leads ? this.#claim : null, ...more });
  }

  /** Tells the others that this tab has the stream, and how far it is. */
  #tell() {
    const { state = null, next = 0 } = this.#link ?? {};
    this.#send('state', { state, wait: next - performance.now(), hello: this.#hello, revision: this.#revision });
  }

  #heard({ kind, claim, ...more }) {
    if (!this.#hasStarted) return;
    if (!claim) {
      if (!this.#leads) return;
      if (kind === 'ask') this.#tell();
      else if (kind === 'hurry') this.own.hurry();
      else if (kind === 'renew') this.own.renew();
      return;
    }
    const order = compared(claim, this.#claim);
    if (order < 0) {
      if (this.#leads) this.#tell();
      return;
    }
    if (order > 0) {
      this.#claim = claim;
      this.own.stop();
    }
    this.#leadAfter(SILENCE_MS);
    if (kind === 'event') this.#take(more.event, more.data, more.id);
    else if (kind === 'left') {
      if (isShown()) this.#lead();
      else if (more.isEnd) this.#leadAfter(Math.random() * SPREAD_MS);
    } else {
      if (more.hello && more.hello.revision !== this.#hello?.revision) this.#take('hello', more.hello, null);
      this.#reached(more.revision);
      if (kind === 'state' && more.state) this.#state(more.state, performance.now() + more.wait);
    }
  }

  /** Changes up to here have been passed on; if this tab has missed some, it reads the lists anew. @param {string|null} revision */
  #reached(revision) {
    const [from, number] = parts(revision), [ownFrom, ownNumber] = parts(this.#revision);
    if (!from || (from === ownFrom && number <= ownNumber)) return;
    this.#revision = revision;
    this.told.event('resync', { reason: 'missed' }, null);
  }

  /** Hands an event to the page, if it is none that it has had. @param {string} event @param {any} data @param {string|null} id */
  #take(event, data, id) {
    if (event === 'hello') this.#hello = data;
    const [from, number] = parts(id), [ownFrom, ownNumber] = parts(this.#revision);
    if (event === 'change' || event === 'forgotten') {
      if (from === ownFrom && number <= ownNumber) return;
      // The stream is of all changes, whose numbers have no gaps.
      if (from !== ownFrom || number > ownNumber + 1) this.told.event('resync', { reason: 'missed' }, null);
    }
    if (id && (event !== 'hello' || !this.#revision)) this.#revision = id;
    this.told.event(event, data, id);
  }

  /** @param {import('./stream.js').Link} state @param {number} next */
  #state(state, next) {
    this.#link = { state, next };
    this.told.state(state, next);
  }
}
