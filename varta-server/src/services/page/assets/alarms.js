// Who is in alarm, worst first, above everything else; and the words that a screen reader hears of new ones.

import { serverNow } from './api.js';
import { byId, el, gathered, mark, say, setMark } from './dom.js';
import { because, clock, count, duration, reason, several, visible } from './format.js';

/** Alarms that are listed; the list of all agents has the others. */
export const LISTED = 6;
/** Alarms that are read at first, so that the incidents among them are known; and incidents and agents that are kept. */
const AT_FIRST = 500, MAX_INCIDENTS = 20, MAX_MEMBERS = 20000;
/** The least time between two announcements. */
const SPOKEN_EVERY_MS = 5000;
const MAX_KNOWN = 2000;
const RANKS = ['down', 'critical', 'stalled', 'missing'];

/** The name of an agent among all: what the server says, or what it makes of its parts. @param {any} record @returns {string} */
export const idOf = ({ id, agent, pid, twin, transport, host }) => id
  ?? `${agent}${pid ? `[${pid}]` : ''}${twin ? `#${twin}` : ''}@${/udp/.test(transport) ? `${transport}:` : ''}${host}`;

const rank = (alarm) => RANKS.indexOf(alarm.problem);
const byGravity = (one, other) => rank(one) - rank(other) || (one.since ?? '').localeCompare(other.since ?? '');

export class Alarms {
  /** @type {any[]} */
  #list = [];
  #total = 0;
  /** Alarms that are known, so that only new ones are announced. @type {Set<string>|null} */
  #known = null;
  /** Many agents of one host that fell at once: who of them is in alarm, by the number of the incident. @type {Map<number, any>} */
  #incidents = new Map();
  #members = 0;
  #isCut = false;
  /** @type {string[]} */
  #unspoken = [];
  #spoken = -Infinity;
  #timer = 0;
  /** @type {any[]} */
  #items = [];

  /** @param {{open: (id: string) => void, all: () => void}} told */
  constructor(told) {
    this.told = told;
    this.draw = gathered(() => this.#draw());
    byId('more-alarms').addEventListener('click', () => told.all());
  }

  get total() {
    return this.#total;
  }

  /** How many alarms are to be read. */
  get wanted() {
    return this.#known ? LISTED : AT_FIRST;
  }

  /** Takes the answer of the server. @param {{total: number, alarms: any[]}} answer */
  put({ total, alarms }) {
    // Of many alarms others are listed when some of them end, which makes these no new ones.
    const isLess = total <= this.#total && total > alarms.length;
    this.#total = total;
    this.#list = alarms.slice(0, LISTED);
    for (const alarm of alarms) this.#join(idOf(alarm), alarm);
    if (total === 0) this.#incidents.clear();
    const before = this.#known;
    if (!before) this.#isCut = total > alarms.length;
    this.#known = new Set([...(total > alarms.length ? (before ?? []) : []), ...alarms.map(idOf)].slice(-MAX_KNOWN));
    if (before && !isLess) for (const alarm of alarms) if (!before.has(idOf(alarm))) this.#announce(alarm);
    this.draw();
  }

  /** Follows a change. A death is an alarm when the server says so: until then another process may take the place. @param {any} record */
  apply(record) {
    if (record.problem === 'down') return;
    const id = idOf(record);
    const had = this.#list.findIndex((alarm) => idOf(alarm) === id);
    const was = had >= 0 || (this.#total > this.#list.length && ['stalled', 'down'].includes(record.from));
    if (had >= 0) this.#list.splice(had, 1);
    this.#join(id, record);
    if (record.problem) {
      this.#list.push({ ...record, since: record.at, paused: false });
      this.#list.sort(byGravity);
      this.#list.length = Math.min(this.#list.length, LISTED);
      if (!was) {
        this.#total += 1;
        if (!this.#known?.has(id)) this.#announce(record);
      }
      this.#known?.add(id);
    } else if (was) {
      this.#total = Math.max(0, this.#total - 1);
      this.#known?.delete(id);
    }
    this.draw();
  }

  /** Begins anew, without an announcement of what was there already. */
  clear() {
    this.#known = null;
    this.#incidents.clear();
    this.#members = 0;
  }

  /** Whoever is in alarm belongs to its incident, and whoever is not any more to none. @param {string} id @param {any} record */
  #join(id, record) {
    for (const [number, { members }] of this.#incidents) {
      if (number !== record.incident && members.delete(id)) this.#members -= 1;
      if (!members.size) this.#incidents.delete(number);
    }
    if (!record.incident || !record.problem || this.#members >= MAX_MEMBERS) return;
    let incident = this.#incidents.get(record.incident);
    if (!incident) {
      if (this.#incidents.size >= MAX_INCIDENTS) return;
      incident = { members: new Set(), host: record.host, problem: record.problem, since: record.since ?? record.at };
      this.#incidents.set(record.incident, incident);
    }
    if (!incident.members.has(id)) this.#members += 1;
    incident.members.add(id);
  }

  /** Renews the times since. */
  tick() {
    const now = serverNow();
    this.#items.forEach((item, index) => {
      const alarm = this.#list[index];
      if (!item.node.hidden) say(item.age, alarm.since ? duration(now - Date.parse(alarm.since)) : 'for long');
    });
  }

  #draw() {
    const box = byId('alarms');
    while (this.#items.length < Math.min(LISTED, this.#list.length)) {
      const item = this.#make();
      this.#items.push(item);
      box.append(item.node);
    }
    this.#items.forEach((item, index) => {
      const alarm = this.#list[index];
      item.node.hidden = !alarm;
      if (alarm) this.#show(item, alarm);
    });
    const incidents = [...this.#incidents.values()].map(({ members, host, problem, since }) =>
      `Many at once: ${this.#isCut ? 'at least ' : ''}${several(members.size, 'agent')} on ${visible(String(host))} ${problem} since ${clock(since)}.`);
    byId('incidents').hidden = !incidents.length;
    say(byId('incidents'), incidents.join('\n'));
    const more = byId('more-alarms');
    more.hidden = this.#total <= Math.min(LISTED, this.#list.length);
    say(more, `${several(this.#total - Math.min(LISTED, this.#list.length), 'more is', 'more are')} in alarm: show all ${count(this.#total)}`);
    this.tick();
  }

  #make() {
    const made = { mark: mark(), name: el('bdi'), where: el('span', { class: 'where' }), why: el('span', { class: 'what' }), age: el('time', { class: 'age' }), text: el('span', { class: 'sentence' }) };
    const button = el('button', { type: 'button', class: 'alarm' },
      made.mark, el('span', { class: 'who' }, made.name, made.where), made.why, made.text, made.age);
    const item = { ...made, id: '', node: el('li', {}, button) };
    button.addEventListener('click', () => this.told.open(item.id));
    return item;
  }

  #show(item, alarm) {
    item.id = idOf(alarm);
    setMark(item.mark, alarm.problem === 'missing' ? 'expected' : alarm.problem);
    item.node.dataset.look = alarm.problem === 'missing' ? 'expected' : alarm.problem;
    say(item.name, visible(alarm.agent));
    say(item.where, visible(alarm.pid ? ` ${alarm.pid} on ${alarm.host}` : ''));
    const marks = [alarm.paused && 'paused', alarm.acknowledged && 'acknowledged'].filter(Boolean).join(', ');
    const cause = alarm.problem === 'critical' ? 'reports critical' : because(alarm.cause);
    say(item.why, [alarm.problem, cause, marks].filter(Boolean).join(' · '));
    say(item.text, visible(reason(alarm)));
    item.age.dateTime = alarm.since ?? '';
    item.age.title = `since ${clock(alarm.since)}`;
  }

  /** Says aloud who is in alarm: at once, and then once in a while what has come together. @param {any} alarm */
  #announce(alarm) {
    this.#unspoken.push(`${visible(alarm.agent)} is ${alarm.problem}: ${because(alarm.cause)}`);
    if (this.#timer) return;
    const pause = Math.max(0, this.#spoken + SPOKEN_EVERY_MS - performance.now());
    this.#timer = setTimeout(() => {
      const told = this.#unspoken.splice(0);
      this.#timer = 0;
      this.#spoken = performance.now();
      const text = told.length > 2 ? `${several(told.length, 'new alarm')}; ${told[0]}` : told.join('. ');
      byId('said').replaceChildren(el('p', { text }));
    }, Math.max(100, pause));
  }
}
