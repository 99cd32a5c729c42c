// The list of all agents: rows exist for those in sight only, whatever their number.

import { draw, strip } from './days.js';
import { byId, el, gathered, mark, say, setMark } from './dom.js';
import { because, bound, clock, count, duration, look, shareOf, visible } from './format.js';

/** The tallest element; browsers end somewhere beyond. Longer lists scroll by more than a row for a row. */
const MAX_HEIGHT = 12000000;
/** Rows beyond the edges that exist, too. */
const BEYOND = 4;

const COLUMNS = [
  { title: 'State', sort: 'problem' },
  { title: 'Agent', sort: 'name' },
  { title: 'Why', sort: '-since' },
  { title: 'Last beat', sort: '-silence' },
  { title: 'Said', sort: '-payload' },
  { title: 'Last day', sort: null },
];

export class Grid {
  /** Rows that were read, by index. @type {Map<number, any>} */
  #rows = new Map();
  /** @type {Map<number, any>} */
  #slots = new Map();
  /** @type {any[]} */
  #free = [];
  #total = 0;
  #active = -1;
  #height = 44;
  #places = { top: 0, first: 0, from: 0, to: 0 };
  /** Whether what is shown is old, so that no time goes on. */
  isStale = false;

  /**
   * @param {{open: (row: any) => void, sort: (sort: string) => void, moved: () => void, day: (id: string) => any}} told
   */
  constructor(told) {
    this.told = told;
    /** Draws before the next picture. */
    this.changed = gathered(() => this.#draw());
    this.grid = byId('grid');
    this.body = byId('rows');
    const sortable = ({ title, sort }) => (sort
      ? el('button', { type: 'button', tabindex: '-1', text: title, onclick: () => told.sort(sort) })
      : title);
    byId('heads').append(...COLUMNS.map((column, index) =>
      el('div', { class: 'cell', role: 'columnheader', 'aria-colindex': index + 1 }, sortable(column))));
    this.body.addEventListener('click', (event) => this.#clicked(event));
    this.grid.addEventListener('keydown', (event) => this.#pressed(event));
    this.grid.addEventListener('focus', () => this.#activate(this.#active < 0 ? this.firstVisible() : this.#active, true));
    addEventListener('scroll', () => this.changed(), { passive: true });
    new ResizeObserver(() => this.#resized()).observe(this.grid);
    // What stands above the heads sticks, too, and may have two lines.
    const tools = byId('tools');
    new ResizeObserver(() => { byId('heads').parentElement.style.top = `${tools.offsetHeight}px`; }).observe(tools);
    this.#resized();
  }

  /** The rows in sight. @returns {{from: number, to: number}} */
  get sight() {
    return this.#places;
  }

  /** Rows that a window can show. */
  get screenful() {
    return Math.ceil(innerHeight / this.#height);
  }

  /** The agents in sight that are known. */
  get shown() {
    const { from, to } = this.#places, shown = [];
    for (let index = from; index < to; index += 1) if (this.#rows.has(index)) shown.push(this.#rows.get(index));
    return shown;
  }

  /** Whether all rows in sight were read. */
  get isRead() {
    const { from, to } = this.#places;
    for (let index = from; index < Math.min(to, this.#total); index += 1) if (!this.#rows.has(index)) return false;
    return true;
  }

  /** Shows the rows of an answer. @param {{matched: number, offset: number, agents: any[]}} list @param {number} read when, by performance.now() */
  put(list, read) {
    const active = this.#rows.get(this.#active)?.id;
    this.#rows = new Map(list.agents.map((row, index) => [list.offset + index, { ...row, read }]));
    for (const [index, row] of this.#rows) if (row.id === active) this.#active = index;
    if (this.#total !== list.matched) {
      this.#total = list.matched;
      this.#active = Math.min(this.#active, list.matched - 1);
      this.grid.setAttribute('aria-rowcount', String(list.matched + 1));
      this.body.style.height = `${Math.min(MAX_HEIGHT, this.#total * this.#height)}px`;
    }
    this.changed();
  }

  /** Changes the row of an agent, if it is known. @param {string} id @param {(row: any) => any} change */
  patch(id, change) {
    for (const [index, row] of this.#rows) {
      if (row.id !== id) continue;
      this.#rows.set(index, change(row));
      this.changed();
      return;
    }
  }

  /** Marks the column by which the list is sorted. @param {string} sort */
  sorted(sort) {
    [...byId('heads').children].forEach((cell, index) => {
      const own = COLUMNS[index].sort;
      if (own === null) return;
      const isIt = own.replace('-', '') === sort.replace('-', '');
      cell.setAttribute('aria-sort', !isIt ? 'none' : own === 'problem' || sort.startsWith('-') ? 'descending' : 'ascending');
    });
  }

  /** Goes back to the first row. */
  rewind() {
    this.#active = -1;
    this.grid.removeAttribute('aria-activedescendant');
    const above = this.#above();
    const top = this.body.getBoundingClientRect().top;
    if (top < above) scrollBy({ top: top - above, behavior: 'instant' });
    this.changed();
  }

  /** Moves the bars of the rows in sight. @param {number} now by performance.now() @param {boolean} texts whether the numbers, too */
  tick(now, texts) {
    if (this.isStale) return;
    for (const slot of this.#slots.values()) if (slot.row) this.#beat(slot, now, texts);
  }

  firstVisible() {
    const covered = this.#places.top > 0 ? this.#above() / this.#height : 0;
    return Math.min(this.#total - 1, Math.max(0, Math.ceil(this.#places.first + covered - 0.01)));
  }

  #resized() {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    this.#height = Math.round(parseFloat(getComputedStyle(this.grid).getPropertyValue('--row')) * rem) || 44;
    this.body.style.height = `${Math.min(MAX_HEIGHT, this.#total * this.#height)}px`;
    for (const slot of this.#slots.values()) slot.y = NaN;
    this.changed();
  }

  /** Where the rows begin to be covered by what sticks above them. */
  #above() {
    return byId('heads').parentElement.getBoundingClientRect().height + byId('tools').getBoundingClientRect().height;
  }

  #draw() {
    const box = this.body.getBoundingClientRect(), height = this.#height;
    const inSight = Math.max(1, Math.ceil(innerHeight / height));
    const top = Math.max(0, -box.top);
    const whole = this.#total * height;
    // Row `first` is at the upper edge of the window, or the first of all is below it.
    const room = Math.max(1, box.height - innerHeight);
    const first = whole <= MAX_HEIGHT ? top / height
      : Math.min(1, top / room) * Math.max(0, this.#total - innerHeight / height);
    const from = Math.max(0, Math.floor(first) - BEYOND);
    const to = Math.min(this.#total, Math.floor(first) + inSight + BEYOND);
    const isElsewhere = from !== this.#places.from || to !== this.#places.to;
    this.#places = { top, first, from, to };
    for (const [index, slot] of this.#slots) {
      if (index >= from && index < to) continue;
      this.#slots.delete(index);
      this.#free.push(slot);
    }
    const now = performance.now(), isWaiting = [];
    for (let index = from; index < to; index += 1) {
      let slot = this.#slots.get(index);
      if (!slot) {
        slot = this.#free.pop() ?? this.#make();
        this.#slots.set(index, slot);
      }
      const y = Math.round(top + (index - first) * height);
      if (slot.y !== y || slot.index !== index) this.#place(slot, index, y);
      this.#show(slot, this.#rows.get(index) ?? null, now);
      if (!slot.node.isConnected) isWaiting.push(slot.node);
    }
    if (isWaiting.length) this.body.append(...isWaiting);
    for (const slot of this.#free.splice(0)) {
      slot.node.remove();
      if (this.#free.length < 64) this.#free.push(slot);
    }
    if (isElsewhere) this.told.moved();
  }

  #place(slot, index, y) {
    slot.y = y;
    slot.node.style.transform = `translateY(${y}px)`;
    if (slot.index === index) return;
    slot.index = index;
    slot.node.id = `row-${index}`;
    slot.node.setAttribute('aria-rowindex', String(index + 2));
    slot.node.classList.toggle('active', index === this.#active);
  }

  #make() {
    const parts = {
      mark: mark(), state: el('span'), tag: el('span', { class: 'tag', text: 'paused', hidden: true }),
      name: el('a', { class: 'name', tabindex: '-1' }, el('bdi')), where: el('span', { class: 'under' }),
      why: el('span'), since: el('span', { class: 'under' }),
      silence: el('span', { class: 'silence' }), fill: el('span', { class: 'fill' }),
      status: el('span'), payload: el('span', { class: 'under' }), strip: strip(),
    };
    const cell = (name, ...children) => el('div', { class: `cell ${name}`, role: 'gridcell' }, ...children);
    const cells = [
      cell('state', parts.mark, parts.state, parts.tag),
      cell('agent', parts.name, parts.where),
      cell('why', parts.why, parts.since),
      cell('beat', parts.silence, el('span', { class: 'bar', 'aria-hidden': 'true' }, parts.fill)),
      cell('report', parts.status, parts.payload),
      cell('day', parts.strip),
    ];
    cells.forEach((made, index) => made.setAttribute('aria-colindex', String(index + 1)));
    return { node: el('div', { class: 'row', role: 'row' }, ...cells), parts, row: undefined, index: -1, y: NaN };
  }

  #show(slot, row, now) {
    const { parts, node } = slot;
    if (row) draw(parts.strip, this.told.day(row.id));
    if (slot.row === row) return;
    slot.row = row;
    node.classList.toggle('unread', !row);
    if (!row) {
      draw(parts.strip, null);
      for (const part of [parts.state, parts.name.firstChild, parts.where, parts.why, parts.since, parts.silence, parts.status, parts.payload]) {
        say(part, '');
      }
      say(parts.name.firstChild, '…');
      parts.name.removeAttribute('href');
      return;
    }
    const shape = look(row);
    setMark(parts.mark, shape);
    node.dataset.look = shape;
    say(parts.state, row.state);
    parts.tag.hidden = !row.paused;
    say(parts.name.firstChild, visible(row.name));
    const link = `#agent=${encodeURIComponent(row.id)}`;
    if (parts.name.getAttribute('href') !== link) parts.name.setAttribute('href', link);
    say(parts.where, visible(row.pid ? `${row.pid} · ${row.host}` : row.host ?? ''));
    say(parts.why, because(row.cause));
    say(parts.since, row.since ? `since ${clock(row.since)}` : '');
    say(parts.status, row.last_beat ? row.status : '');
    say(parts.payload, row.last_beat ? `${count(row.payload)}${row.lost ? ` · ${count(row.lost)} lost` : ''}` : '');
    this.#beat(slot, now, true);
  }

  #beat({ row, parts }, now, texts) {
    const gone = this.isStale ? 0 : now - row.read;
    const silence = row.silence_ms === null ? null : row.silence_ms + gone;
    if (texts) {
      say(parts.silence, silence === null ? 'no beat yet'
        : row.state === 'up' ? `${duration(silence)} of ${bound(row.stall_after_ms)}` : `${duration(silence)} ago`);
    }
    // Steps that nobody could see are left out.
    const step = Math.round(shareOf(row, silence) * 256);
    if (parts.fill.step !== step) {
      parts.fill.step = step;
      parts.fill.style.transform = `scaleX(${step / 256})`;
      parts.fill.classList.toggle('late', step > 204);
    }
  }

  #clicked(event) {
    const node = event.target.closest('.row');
    const slot = [...this.#slots.values()].find((found) => found.node === node);
    // A link with a key held down is for the browser.
    if (!slot?.row || event.ctrlKey || event.metaKey || event.shiftKey || String(getSelection() ?? '') !== '') return;
    event.preventDefault();
    this.#activate(slot.index);
    this.told.open(slot.row);
  }

  #pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor((innerHeight - this.#above()) / this.#height) - 1);
    const steps = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key === 'Enter' || event.key === ' ') {
      const row = this.#rows.get(this.#active);
      if (row) this.told.open(row);
    } else if (event.key in steps) this.#activate(this.#active + steps[event.key], true);
    else return;
    event.preventDefault();
  }

  #activate(wanted, scrolls = false) {
    const index = Math.max(0, Math.min(this.#total - 1, wanted));
    this.#slots.get(this.#active)?.node.classList.remove('active');
    if (this.#total === 0) return;
    this.#active = index;
    if (scrolls) this.#scrollTo(index);
    this.#draw();
    this.#slots.get(index)?.node.classList.add('active');
    this.grid.setAttribute('aria-activedescendant', `row-${index}`);
  }

  #scrollTo(index) {
    const { first } = this.#places, height = this.#height;
    const box = this.body.getBoundingClientRect();
    const isScaled = this.#total * height > MAX_HEIGHT;
    const y = isScaled && box.top < 0 ? (index - first) * height : box.top + index * height;
    const missing = y < this.#above() ? y - this.#above() : Math.max(0, y + height - innerHeight);
    if (missing === 0) return;
    const rows = this.#total - innerHeight / height;
    scrollBy({ top: isScaled ? (missing / height) * ((box.height - innerHeight) / rows) : missing, behavior: 'instant' });
  }
}
