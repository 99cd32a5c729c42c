// The last day of an agent as a strip. Bad times are taller than good ones, so that the color is not needed.

import { get } from './api.js';
import { svg } from './dom.js';
import { percent } from './format.js';

const DAY_MS = 86400000;
const KEPT = 600, AT_ONCE = 60, FRESH_MS = 60000;
/** The parts that a strip is cut into; of each the worst is shown. */
const SLOTS = 144;
const WORST = ['down', 'stalled', 'expected', 'unknown', 'up', 'gone', 'unseen'];
/** Top and height of each state in a strip that is 16 high. */
const LOOKS = { down: [0, 16], stalled: [3, 13], expected: [6, 10], unknown: [8, 8], up: [11, 5], gone: [14, 2], unseen: [15, 1] };

/** @typedef {{from_ms: number, state: string}} Part */

/** The worst state of each slot. @param {Part[]} parts in order */
export function slots(parts) {
  const worst = new Array(SLOTS).fill(WORST.length - 1);
  parts.forEach((part, index) => {
    const until = parts[index + 1]?.from_ms ?? DAY_MS;
    const rank = WORST.indexOf(part.state);
    if (rank < 0 || until <= part.from_ms) return;
    const last = Math.min(SLOTS, Math.ceil((until * SLOTS) / DAY_MS));
    for (let slot = Math.max(0, Math.floor((part.from_ms * SLOTS) / DAY_MS)); slot < last; slot += 1) {
      worst[slot] = Math.min(worst[slot], rank);
    }
  });
  return worst.map((rank) => WORST[rank]);
}

/** A strip without anything in it. */
export function strip() {
  return svg('svg', { class: 'strip', role: 'img', viewBox: `0 0 ${SLOTS} 16`, preserveAspectRatio: 'none', 'aria-label': 'Last day' });
}

/** Draws a day. @param {any} node a strip @param {Part[]|null} parts */
export function draw(node, parts) {
  if (node.parts === parts) return;
  node.parts = parts;
  if (!parts) {
    node.replaceChildren();
    node.setAttribute('aria-label', 'Last day: not read yet');
    return;
  }
  const paths = {};
  const found = slots(parts);
  for (let from = 0, to = 0; from < SLOTS; from = to) {
    while (to < SLOTS && found[to] === found[from]) to += 1;
    const [top, height] = LOOKS[found[from]];
    paths[found[from]] = `${paths[found[from]] ?? ''}M${from} ${top}h${to - from}v${height}h${from - to}z`;
  }
  node.replaceChildren(...Object.entries(paths).map(([state, d]) => svg('path', { d, 'data-look': state })));
  node.setAttribute('aria-label', `Last day: ${inWords(parts)}`);
}

/** @param {Part[]} parts */
function inWords(parts) {
  const spent = {};
  parts.forEach(({ from_ms: from, state }, index) => {
    spent[state] = (spent[state] ?? 0) + Math.max(0, (parts[index + 1]?.from_ms ?? DAY_MS) - from);
  });
  return Object.entries(spent)
    .sort(([, one], [, other]) => other - one)
    .map(([state, time]) => `${state === 'unseen' ? 'not seen' : state} ${percent(time / DAY_MS)}`)
    .join(', ');
}

/** Days that were read, the last 600 of them. */
export class Days {
  /** @type {Map<string, {parts: Part[], read: number}>} */
  #kept = new Map();
  #isReading = false;

  /** @param {string} id @returns {Part[]|null} */
  of(id) {
    return this.#kept.get(id)?.parts ?? null;
  }

  /** The day of this agent has changed. @param {string} id */
  drop(id) {
    const kept = this.#kept.get(id);
    if (kept) kept.read = -Infinity;
  }

  clear() {
    this.#kept.clear();
  }

  /** Reads those of these that are missing or old, some at a time. Returns whether there is something to draw. @param {string[]} ids */
  async want(ids) {
    const now = performance.now();
    const missing = ids.filter((id) => !(now - (this.#kept.get(id)?.read ?? -Infinity) < FRESH_MS)).slice(0, AT_ONCE);
    if (!missing.length || this.#isReading) return false;
    this.#isReading = true;
    try {
      const { days } = await get('days', new URLSearchParams(missing.map((id) => ['id', id])));
      for (const id of missing) {
        this.#kept.delete(id);
        this.#kept.set(id, { parts: days.find((day) => day.id === id)?.parts ?? [], read: performance.now() });
      }
      for (const id of this.#kept.keys()) {
        if (this.#kept.size <= KEPT) break;
        this.#kept.delete(id);
      }
      return true;
    } finally {
      this.#isReading = false;
    }
  }
}
