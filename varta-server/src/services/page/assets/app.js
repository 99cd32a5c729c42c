// The page: reads what is in sight once a second, and follows the stream of changes in between.

import { AgentView } from './agent.js';
import { Alarms, idOf } from './alarms.js';
import { get, readiness, Refusal, serverNow, Unreachable } from './api.js';
import { Days } from './days.js';
import { showKeys, showPauses, showServer } from './dialogs.js';
import { showDoings } from './doings.js';
import { byId, el, gathered, say } from './dom.js';
import { fromHash, isAll, SORTS, STATES, toHash, toRequest } from './filters.js';
import { count, duration, several, visible } from './format.js';
import { Grid } from './grid.js';
import { parts, SharedStream } from './tabs.js';

const READ_EVERY_MS = 1000, READY_EVERY_MS = 10000, TYPED_MS = 120, TEXT_EVERY_MS = 200;
/** How soon after a change the lists are read again, whose order it may have changed. */
const SOON_MS = 150;
/** The same while the page is hidden: longer than a death waits for its successor by default. */
const UNSEEN_MS = 5000;
/** The same for a place to which somebody scrolls. */
const ELSEWHERE_MS = 30;
/** Changes that are kept to be applied to answers that are older than they are. */
const MAX_CHANGES = 4096;
/** The most rows of one answer. */
const MAX_ROWS = 500;

let shown = fromHash(location.hash);
/** @type {any} */
let counts = null;
let total = 0;
let instance = '';
/** @type {{instance: string, number: number, record: any}[]} */
let changes = [];
let link = 'connecting';
let lostAt = 0, nextTry = 0;
/** When what is shown was read, by performance.now(). */
let readAt = -Infinity;
/** @type {AbortController|null} */
let reading = null;
let isDue = false, isSoon = false;
let readTimer = 0, typedTimer = 0, lostTimer = 0;
let hasOpened = false;
/** @type {AgentView|null} */
let agentView = null;
/** @type {any} */
let dialog = null;

const days = new Days();
const grid = new Grid({
  open: (row) => openAgent(row.id),
  sort: (sort) => filter({ sort: shown.sort === sort ? opposite(sort) : sort }),
  moved: () => { if (!grid.isRead) soon(ELSEWHERE_MS); wantDays(); },
  day: (id) => days.of(id),
});
const alarms = new Alarms({ open: openAgent, all: () => { filter({ alarm: true, states: [], search: '' }); byId('grid').focus({ preventScroll: true }); } });
const stream = new SharedStream({ event: streamed, state: linked });

/** @param {string} sort */
function opposite(sort) {
  return sort === 'problem' ? 'problem' : sort.startsWith('-') ? sort.slice(1) : `-${sort}`;
}

/** Reads what is in sight, unless the server is lost, or nobody looks and nothing has changed. While an answer is awaited, another one is asked for after it. */
async function read() {
  clearTimeout(readTimer);
  const isWanted = isSoon || document.visibilityState === 'visible';
  isSoon = false;
  if (!isWanted || link === 'lost') return;
  if (reading) {
    isDue = true;
    return;
  }
  const own = (reading = new AbortController()), { signal } = own;
  isDue = false;
  const from = grid.sight.from, to = Math.max(grid.sight.to, from + grid.screenful);
  const margin = Math.max(20, to - from);
  const offset = Math.max(0, from - margin);
  const limit = Math.min(MAX_ROWS, to - offset + margin);
  let pause = READ_EVERY_MS;
  try {
    const [list, inAlarm] = await Promise.all([
      get('agents', { ...toRequest(shown), limit, offset }, signal),
      get('alarms', { limit: alarms.wanted }, signal),
    ]);
    if (signal.aborted) return;
    readAt = performance.now();
    adopt(list, inAlarm);
    refuse('');
    wantDays();
    // Whoever scrolls on does not wait.
    if (!grid.isRead) pause = ELSEWHERE_MS;
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof Unreachable) stream.renew();
    else refuse(error instanceof Refusal ? error.message : String(error));
    open(null);
  } finally {
    if (reading === own) reading = null;
  }
  readTimer = setTimeout(read, isDue ? SOON_MS : pause);
}

/** Reads something else than before: an answer that is awaited is of no use. */
function readAnew() {
  reading?.abort();
  reading = null;
  isSoon = true;
  read();
}

/** Opens the stream, once. @param {string|null} revision */
function open(revision) {
  if (hasOpened) return;
  hasOpened = true;
  stream.start(revision);
}

/** Shows answers, and what has changed since they were made. */
function adopt(list, inAlarm) {
  const [from, number] = parts(list.revision);
  if (from !== instance) {
    // Another server, whose changes have other numbers.
    instance = from;
    changes = changes.filter((change) => change.instance === from);
    alarms.clear();
    days.clear();
  }
  counts = list.counts;
  total = list.total;
  grid.put(list, readAt);
  alarms.put(inAlarm);
  const [, alarmNumber] = parts(inAlarm.revision);
  for (const change of changes) {
    if (change.number > number) applyToList(change.record);
    if (change.number > alarmNumber) alarms.apply(change.record);
  }
  open(list.revision);
  head();
  empty(list);
}

/** @param {any} record */
function applyToList(record) {
  if (counts) {
    if (record.from in counts) counts[record.from] -= 1;
    else total += 1;
    if (record.to in counts) counts[record.to] += 1;
  }
  const at = Date.parse(record.at);
  grid.patch(idOf(record), (row) => ({
    ...row, state: record.to, status: record.status ?? row.status, cause: record.cause, since: record.at, problem: record.problem,
    payload: record.payload ?? row.payload, summary: record.summary,
    silence_ms: record.silence_ms ?? row.silence_ms, stall_after_ms: record.stall_after_ms ?? row.stall_after_ms,
    read: performance.now() - Math.max(0, Math.min(READ_EVERY_MS, serverNow() - at)),
  }));
}

/** @param {string} event @param {any} data @param {string|null} id */
function streamed(event, data, id) {
  if (event === 'change' && id) {
    const [from, number] = parts(id);
    changes.push({ instance: from, number, record: data });
    if (changes.length > MAX_CHANGES) changes.splice(0, MAX_CHANGES / 2);
    applyToList(data);
    alarms.apply(data);
    days.drop(idOf(data));
    head();
    if (agentView?.id === idOf(data)) agentView.read();
    soon();
  } else if (event === 'hello') {
    say(byId('host'), visible(data.host));
    byId('host').title = `version ${data.version}`;
    if (parts(data.revision)[0] !== instance) readAnew();
  } else if (event === 'forgotten') soon();
  else if (event === 'resync') {
    changes = [];
    alarms.clear();
    days.clear();
    agentView?.read();
    readAnew();
  }
}

/** Reads again, a little later, however often this is called; where nobody looks, for the title only. @param {number} [within] */
function soon(within = document.visibilityState === 'visible' ? SOON_MS : UNSEEN_MS) {
  if (isSoon) return;
  isSoon = true;
  clearTimeout(readTimer);
  readTimer = setTimeout(read, within);
}

/** @param {import('./stream.js').Link} state @param {number} next when it is tried again, by performance.now() */
function linked(state, next) {
  const before = link;
  nextTry = next;
  clearTimeout(lostTimer);
  if (state === 'connecting') lostTimer = setTimeout(() => linked('lost', 0), 500);
  link = state;
  if (state === 'lost' && before !== 'lost') {
    lostAt = performance.now();
    reading?.abort();
    reading = null;
  }
  grid.isStale = state === 'lost';
  document.body.classList.toggle('stale', state === 'lost');
  byId('link').dataset.link = state;
  say(byId('link'), state);
  byId('link').title = state === 'polling' ? 'No stream of changes: asks once a second.' : '';
  showLost();
  if (before !== state && (state === 'live' || (before === 'lost' && state === 'polling'))) {
    read();
    ready();
    agentView?.read();
  }
}

function showLost() {
  const box = byId('lost');
  if (link !== 'lost') {
    box.hidden = true;
    return;
  }
  if (box.hidden) {
    box.replaceChildren(el('strong', { text: 'The server is lost. ' }), el('span', { 'aria-live': 'off' }),
      el('button', { type: 'button', text: 'Try again', onclick: () => stream.hurry() }));
    box.hidden = false;
  }
  const now = performance.now();
  const age = readAt > 0 ? `What is shown is ${duration(now - readAt)} old. ` : 'Nothing could be read yet. ';
  const next = nextTry > now ? `Next try in ${Math.ceil((nextTry - now) / 1000)} s. ` : 'Trying … ';
  say(box.children[1], age + next);
}

const head = gathered(() => {
  if (!counts) return;
  const ill = alarms.total;
  const headline = byId('headline');
  headline.dataset.mood = ill ? 'ill' : 'well';
  say(headline, total === 0 ? 'No agents yet.'
    : ill === 0 ? `None of ${several(total, 'agent')} is in alarm.`
      : `${count(ill)} of ${several(total, 'agent')} ${ill === 1 ? 'is' : 'are'} in alarm.`);
  const order = ['down', 'stalled', 'expected', 'unknown', 'up', 'gone'];
  say(byId('subline'), order.filter((state) => counts[state]).map((state) => `${count(counts[state])} ${state}`).join(' · '));
  for (const state of STATES) say(byId(`count-${state}`), count(counts[state] ?? 0));
  say(byId('count-all'), count(total));
  say(byId('count-alarm'), count(ill));
  document.title = `${ill ? `(${count(ill)}) ` : ''}Varta${byId('host').textContent ? ` · ${byId('host').textContent}` : ''}`;
  const icon = ill ? 'assets/icon-alarm.svg' : 'assets/icon.svg';
  if (byId('icon').getAttribute('href') !== icon) byId('icon').setAttribute('href', icon);
});

/** @param {{matched: number}} list */
function empty({ matched }) {
  say(byId('matched'), isAll(shown) ? '' : several(matched, 'match', 'matches'));
  const box = byId('empty'), kind = matched ? '' : total ? 'filtered' : 'none';
  if (box.dataset.kind === kind) return;
  box.dataset.kind = kind;
  box.hidden = kind === '';
  byId('grid').classList.toggle('bare', kind !== '');
  if (kind === 'filtered') {
    box.replaceChildren(el('p', { text: 'No agent fits.' }),
      el('button', { type: 'button', class: 'quiet', text: 'Show all', onclick: () => filter({ states: [], alarm: false, search: '' }) }));
  } else if (kind === 'none') {
    box.replaceChildren(el('p', { text: 'An agent appears with its first beat. This one needs no code:' }),
      el('pre', { text: 'varta-server exec -- sleep 60' }));
  }
}

/** @param {string} why */
function refuse(why) {
  byId('refused').hidden = !why;
  say(byId('refused'), visible(why));
}

async function ready() {
  if (link === 'lost' || document.visibilityState !== 'visible') return;
  try {
    const { ready: isReady, faults } = await readiness();
    const box = byId('faults');
    box.hidden = isReady && !faults.length;
    say(box, `${isReady ? 'This server has' : 'This server is not ready:'} ${faults.length ? several(faults.length, 'fault') : 'it says no more'}. ${visible(faults[0] ?? '')}`);
  } catch { /* The stream tells when the server is lost. */ }
}

let daysTimer = 0;
function wantDays() {
  clearTimeout(daysTimer);
  daysTimer = setTimeout(async () => {
    if (document.visibilityState !== 'visible' || link === 'lost') return;
    const ids = grid.shown.map((row) => row.id);
    if (agentView) ids.unshift(agentView.id);
    try {
      if (await days.want(ids)) {
        grid.changed();
        if (ids.some((id) => !days.of(id))) wantDays();
      }
    } catch { /* They are asked for again with the next reading. */ }
  }, 120);
}

/** @param {Partial<import('./filters.js').Filters>} change @param {boolean} [isTyped] */
function filter(change, isTyped = false) {
  const next = { ...shown, ...change };
  history[isTyped ? 'replaceState' : 'pushState'](null, '', toHash(next, next));
  take(next, isTyped ? TYPED_MS : 0);
}

/** Shows what the address says. @param {ReturnType<typeof fromHash>} next @param {number} [within] */
function take(next, within = 0) {
  const isOther = toHash(next) !== toHash(shown);
  shown = next;
  tools();
  if (isOther) {
    grid.rewind();
    clearTimeout(typedTimer);
    typedTimer = setTimeout(readAnew, within);
  }
  windows();
}

function tools() {
  const { states, alarm, search, sort } = shown;
  for (const state of STATES) byId(`state-${state}`).setAttribute('aria-pressed', String(states.includes(state)));
  byId('state-alarm').setAttribute('aria-pressed', String(alarm));
  byId('state-all').setAttribute('aria-pressed', String(!alarm && !states.length));
  if (byId('search').value !== search) byId('search').value = search;
  const select = byId('sort');
  if (![...select.options].some((option) => option.value === sort)) select.append(el('option', { value: sort, text: sort.replace('-', '') }));
  select.value = sort;
  grid.sorted(sort);
}

/** @param {string} id */
function openAgent(id) {
  go({ agent: id, view: null });
}

/** @param {{agent?: string|null, view?: string|null}} change */
function go(change) {
  const next = { ...shown, ...change };
  history.pushState(null, '', toHash(next, next));
  take(next);
}

/** Opens and closes windows, so that they are what the address says. */
function windows() {
  if (agentView && agentView.id !== shown.agent) {
    const closing = agentView;
    agentView = null;
    closing.dialog.close();
  }
  if (shown.agent && !agentView) {
    const id = shown.agent;
    agentView = new AgentView(id, {
      day: (of) => days.of(of), changed: () => readAnew(),
      closed: () => {
        if (agentView?.id !== id) return;
        agentView = null;
        go({ agent: null });
      },
    });
    wantDays();
  }
  if (dialog && dialog.view !== shown.view) {
    const closing = dialog;
    dialog = null;
    closing.node.close();
  }
  /** @type {Record<string, (closed: () => void) => any>} */
  const made = { keys: showKeys, server: showServer, pauses: (closed) => showPauses(closed, readAnew), incidents: (closed) => showDoings(closed, openAgent) };
  const view = shown.view;
  if (view && view in made && !dialog) {
    const closed = () => {
      if (dialog?.view !== view) return;
      dialog = null;
      go({ view: null });
    };
    dialog = { view, node: made[view](closed) };
  }
}

function begin() {
  const button = (id, label, act) => el('button', { type: 'button', id: `state-${id}`, class: 'state', 'data-look': id, 'aria-pressed': 'false', onclick: act },
    label, ' ', el('b', { id: `count-${id}`, text: '–' }));
  byId('states').append(
    button('all', 'All', () => filter({ states: [], alarm: false })),
    button('alarm', 'In alarm', () => filter({ alarm: !shown.alarm, states: [] })),
    ...STATES.map((state) => button(state, state, () => filter({
      alarm: false, states: shown.states.includes(state) ? shown.states.filter((other) => other !== state) : [...shown.states, state],
    }))));
  byId('sort').append(...Object.entries(SORTS).map(([value, text]) => el('option', { value, text: `by ${text}`.replace('by worst', 'worst') })));
  byId('sort').addEventListener('change', () => filter({ sort: byId('sort').value }));
  byId('search').addEventListener('input', () => filter({ search: byId('search').value }, true));
  for (const view of ['incidents', 'pauses', 'server', 'keys']) byId(`open-${view}`).addEventListener('click', () => go({ view }));
  byId('skip').addEventListener('click', (event) => { event.preventDefault(); byId('grid').focus({ preventScroll: true }); });
  addEventListener('popstate', () => take(fromHash(location.hash)));
  addEventListener('hashchange', () => take(fromHash(location.hash)));
  addEventListener('keydown', pressed);
  addEventListener('online', () => stream.hurry());
  addEventListener('offline', () => stream.renew());
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState !== 'visible') return;
    stream.hurry();
    read();
    ready();
    agentView?.read();
  });
  setInterval(ready, READY_EVERY_MS);
  setInterval(() => { if (link === 'lost') showLost(); else alarms.tick(); }, 1000);
  tools();
  windows();
  read();
  requestAnimationFrame(frame);
}

const isCalm = matchMedia('(prefers-reduced-motion: reduce)');
let textAt = 0, stepAt = 0;
/** Moves bars. @param {number} now */
function frame(now) {
  requestAnimationFrame(frame);
  if (isCalm.matches && now - stepAt < READ_EVERY_MS) return;
  stepAt = now;
  const texts = now - textAt >= TEXT_EVERY_MS;
  if (texts) textAt = now;
  grid.tick(now, texts);
  if (texts) agentView?.tick(now, grid.isStale);
}

/** @param {KeyboardEvent} event */
function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const isTyping = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
  if (event.key === 'Escape' && event.target === byId('search')) {
    filter({ search: '' }, true);
    byId('grid').focus({ preventScroll: true });
    return;
  }
  if (isTyping || document.querySelector('dialog.small')) return;
  const acts = {
    '/': () => byId('search').focus(), g: () => byId('grid').focus({ preventScroll: true }), a: () => filter({ alarm: !shown.alarm, states: [] }),
    i: () => go({ view: 'incidents' }), s: () => go({ view: 'server' }), '?': () => go({ view: 'keys' }), p: () => agentView?.askForPause(),
  };
  if (!(event.key in acts) || (document.querySelector('dialog') && event.key !== 'p')) return;
  event.preventDefault();
  acts[event.key]();
}

begin();
