// One agent: all that the server knows of it, in a sheet at the side.

import { get, Refusal } from './api.js';
import { draw, strip } from './days.js';
import { askForPause, factList, open, pauseList } from './dialogs.js';
import { alertList, recoveryList } from './doings.js';
import { el, mark, say, setMark } from './dom.js';
import { because, bound, clock, count, duration, look, percent, reason, shareOf, visible, visibleLines } from './format.js';

const READ_EVERY_MS = 2000;
const HOUR_MS = 3600000;
/** @type {[string, string, number][]} */
const SPANS = [['1h', 'last hour', 1], ['24h', '24 hours', 24], ['7d', '7 days', 168], ['30d', '30 days', 720]];

const heading = (/** @type {string} */ text) => el('h3', { text });

/** The view of one agent, until it is closed. */
export class AgentView {
  #ended = new AbortController();
  #isReading = false;
  #isDue = false;
  #timer = 0;
  /** @type {any} */
  #row = null;

  /** @param {string} id @param {{closed: () => void, day: (id: string) => any, changed: () => void}} told */
  constructor(id, told) {
    this.id = id;
    this.told = told;
    const { dialog, heading: title, body } = open('Agent', 'sheet', () => {
      this.#ended.abort();
      clearTimeout(this.#timer);
      told.closed();
    });
    this.dialog = dialog;
    this.title = title;
    this.mark = mark();
    this.word = el('strong');
    this.sentence = el('p', { class: 'sentence', dir: 'auto' });
    this.silence = el('span', { class: 'silence' });
    this.fill = el('span', { class: 'fill' });
    this.bar = el('span', { class: 'bar', 'aria-hidden': 'true' }, this.fill);
    this.strip = strip();
    this.pause = el('button', { type: 'button', class: 'main', text: 'Pause …', onclick: () => this.askForPause() });
    this.place = el('p', { class: 'under', dir: 'auto' });
    this.refused = el('p', { class: 'refused', role: 'status', hidden: true });
    this.known = el('div', { class: 'known' });
    this.since = el('span', { class: 'under' });
    say(title, visible(id));
    body.append(this.place, this.refused,
      el('p', { class: 'verdict' }, this.mark, this.word, this.since), this.sentence,
      el('p', { class: 'beat' }, this.silence, this.bar),
      el('div', { class: 'day' }, this.strip, el('p', { class: 'hours', 'aria-hidden': 'true' }, el('span', { text: '24 h ago' }), el('span', { text: '12 h' }), el('span', { text: 'now' }))),
      el('div', { class: 'buttons' }, this.pause), this.known);
    this.read();
  }

  /** Reads it anew, once more if a reading is under way. */
  async read() {
    if (this.#isReading) {
      this.#isDue = true;
      return;
    }
    this.#isReading = true;
    clearTimeout(this.#timer);
    try {
      const answer = await get(`agents/${encodeURIComponent(this.id)}`, {}, this.#ended.signal);
      this.refused.hidden = true;
      this.#show(answer);
    } catch (error) {
      if (this.#ended.signal.aborted) return;
      this.refused.hidden = false;
      say(this.refused, error instanceof Refusal && error.status === 404
        ? 'The server does not know this agent. It may have been forgotten.' : visible(String(error.message)));
    } finally {
      this.#isReading = false;
    }
    if (this.#isDue) {
      this.#isDue = false;
      this.read();
    } else {
      this.#timer = setTimeout(() => { if (document.visibilityState === 'visible') this.read(); }, READ_EVERY_MS);
    }
  }

  askForPause() {
    if (this.#row) askForPause(this.#row.name, () => { this.read(); this.told.changed(); });
  }

  /** @param {number} now by performance.now() @param {boolean} isStale */
  tick(now, isStale) {
    const row = this.#row;
    draw(this.strip, this.told.day(this.id));
    if (!row || isStale) return;
    const silence = row.silence_ms === null ? null : row.silence_ms + now - row.read;
    say(this.silence, silence === null ? 'no beat yet' : `last beat ${duration(silence)} ago${row.state === 'up' ? `; in alarm after ${bound(row.stall_after_ms)}` : ''}`);
    const share = shareOf(row, silence);
    this.fill.style.transform = `scaleX(${Math.round(share * 512) / 512})`;
    this.fill.classList.toggle('late', share > 0.8);
  }

  #show(/** @type {any} */ answer) {
    const { agent, change } = answer;
    this.#row = { ...agent, read: performance.now() };
    const shape = look(agent);
    say(this.title, visible(agent.name));
    say(this.place, visible(agent.pid ? `process ${agent.pid} on ${agent.host}` : `on ${agent.host ?? 'no host'}`));
    setMark(this.mark, shape);
    this.dialog.dataset.look = shape;
    say(this.word, agent.state === 'up' && agent.status !== 'ok' ? `up, reports ${agent.status}` : agent.state);
    say(this.since, `${because(agent.cause)} · since ${clock(agent.since)}${agent.paused ? ' · paused' : ''}`);
    say(this.sentence, visible(reason({ summary: agent.summary ?? change?.summary, dossier: change?.dossier })));
    this.tick(performance.now(), false);

    const { transitions, uptime, pauses, alerts, recoveries } = answer;
    const state = JSON.stringify([agent.since, agent.paused, agent.labels, change, transitions, uptime, pauses, alerts, recoveries]);
    const numbers = [agent.payload, agent.beats, agent.lost, agent.stalls, agent.last_beat];
    if (this.known.state !== state) {
      this.known.state = state;
      this.facts = el('div');
      this.known.replaceChildren(this.facts, ...this.#sections(answer));
    }
    if (this.facts.state !== String(numbers)) {
      this.facts.state = String(numbers);
      this.facts.replaceChildren(factList([
        ['Last beat', agent.last_beat ? clock(agent.last_beat) : 'none yet'],
        ['Said', agent.last_beat ? `${agent.status}, payload ${count(agent.payload)}` : ''],
        ['Beats', `${count(agent.beats)}${agent.lost ? `, ${count(agent.lost)} lost on the way` : ''}`],
        ['Stalls', count(agent.stalls)],
        ['Beats by', agent.transport],
        ['Unit', agent.unit ? visible(agent.unit) : ''],
      ]));
    }
  }

  #sections({ agent, change, transitions, uptime, pauses, alerts, recoveries }) {
    const parts = [];
    const labels = Object.entries(agent.labels ?? {});
    if (labels.length) {
      parts.push(heading('Labels'), factList(labels.map(([name, value]) => [visible(name), visible(String(value))])));
    }
    if (change?.dossier || change?.said) {
      parts.push(heading('What the server saw of its process'));
      if (change.said) parts.push(el('p', { dir: 'auto', text: `It said: ${visible(change.said)}` }));
      if (change.dossier) parts.push(el('pre', { class: 'dossier', tabindex: '0', text: visibleLines(change.dossier) }));
    }
    if (uptime) {
      parts.push(heading('Up'), el('dl', { class: 'uptime' }, ...SPANS.flatMap(([key, text, hours]) => {
        const span = uptime[key];
        const note = span && span.known < 0.999 ? `known: ${duration(span.known * hours * HOUR_MS)}` : '';
        return [el('div', {}, el('dt', { text }), el('dd', {}, el('b', { text: span ? percent(span.up) : 'not known' }), el('small', { text: note })))];
      })));
    }
    if (pauses?.length) parts.push(heading('Pauses'), pauseList(pauses, () => { this.read(); this.told.changed(); }));
    if (alerts?.length) parts.push(heading('Alerts that fire'), alertList(alerts));
    if (recoveries?.length) parts.push(heading('Recovery'), recoveryList(recoveries));
    parts.push(heading('What happened'));
    if (!transitions.length) parts.push(el('p', { class: 'note', text: 'No change is known.' }));
    parts.push(el('ol', { class: 'timeline' }, ...transitions.map((record) => {
      const made = mark();
      const shape = look({ state: record.to, status: record.status });
      setMark(made, shape);
      return el('li', { 'data-look': shape }, made, el('time', { datetime: record.at, text: clock(record.at) }),
        el('span', {}, el('strong', { text: record.to === 'up' && record.status !== 'ok' ? `up (${record.status})` : record.to }), ` ${because(record.cause)}`),
        el('small', { dir: 'auto', text: visible(reason(record)) }));
    })));
    return parts;
  }
}
