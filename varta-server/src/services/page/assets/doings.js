// What the services do about agents: the alerts that fire, the actions of recovery, and incidents, many that fell at once.

import { get } from './api.js';
import { open } from './dialogs.js';
import { el, mark, setMark } from './dom.js';
import { because, clock, count, duration, several, visible } from './format.js';

const READ_EVERY_MS = 5000;
/** How many of each are listed. */
const LISTED = 20;

const OUTCOMES = {
  running: 'runs', done: 'done', failed: 'failed', timed_out: 'took too long', skipped: 'skipped', withdrawn: 'withdrawn',
  dry_run: 'not done: a dry run', refused: 'refused', given_up: 'given up', unknown: 'ended unseen',
  taken: 'taken', waiting: 'waits', acknowledged: 'held back: acknowledged',
};
/** Those in which something is wrong. */
const ILL = ['failed', 'timed_out', 'refused', 'given_up'];

const word = (/** @type {string} */ text) => OUTCOMES[text] ?? visible(text.replaceAll('_', ' '));
const lookOf = (/** @type {string} */ problem) => (problem === 'missing' ? 'expected' : problem);
const heading = (/** @type {string} */ text) => el('h3', { text });
const note = (/** @type {string} */ text) => el('p', { class: 'note', text });

/** A name that opens its agent. @param {string} name @param {string} id @param {((id: string) => void)|null} follow */
const named = (name, id, follow) => (follow
  ? el('button', { type: 'button', class: 'follow', onclick: () => follow(id) }, el('bdi', { text: visible(name) })) : null);

/** An entry of a list: its time, what it is, and what more there is to say. */
function entry(/** @type {string} */ shape, /** @type {string} */ at, /** @type {(Node|string|null)[]} */ main, /** @type {(string|null)[]} */ more) {
  const made = mark();
  setMark(made, shape);
  return el('li', { 'data-look': shape }, made, el('time', { datetime: at, text: clock(at) }), el('span', {}, ...main),
    ...more.filter(Boolean).map((text) => el('small', { dir: 'auto', text: visible(String(text)) })));
}

/** Actions of recovery and refusals. @param {any[]} recoveries @param {((id: string) => void)|null} follow opens an agent; `null` where all are of one */
export const recoveryList = (recoveries, follow = null) => el('ol', { class: 'timeline' }, ...recoveries.map((recovery) => {
  const { outcome, began, ended, exit_code: code, exit_signal: signal } = recovery;
  const took = ended && recovery.action ? ` in ${duration(Date.parse(ended) - Date.parse(began))}` : '';
  const how = code ? `, exit status ${code}` : signal ? `, ended by signal ${signal}` : '';
  const place = recovery.action ? `step ${recovery.step} of ${recovery.steps}, attempt ${recovery.attempt}, for ${recovery.state}: ${because(recovery.cause)}` : null;
  return entry(ILL.includes(outcome) ? 'down' : outcome === 'running' ? 'unknown' : 'gone', began,
    [named(recovery.name, recovery.id, follow), follow ? ' ' : null, el('strong', { text: word(outcome) + took + how }),
      recovery.reason ? ` ${because(recovery.reason)}` : null],
    [recovery.text, place]);
}));

/** Alerts that fire. @param {any[]} alerts @param {((id: string) => void)|null} follow */
export const alertList = (alerts, follow = null) => el('ol', { class: 'timeline' }, ...alerts.map((alert) => {
  const sent = alert.sent.map(({ kind, name, outcome, attempts, why }) =>
    `${kind} ${name}: ${word(outcome)}${attempts > 1 ? ` (${several(attempts, 'attempt')})` : ''}${why ? `, ${why}` : ''}`);
  const name = alert.agent ? named(alert.agent, alert.agent, follow) : null;
  return entry(lookOf(alert.problem ?? 'unknown'), alert.since,
    [name, name ? ' ' : null, el('strong', { text: visible(alert.name ?? '') }), alert.acknowledged === null ? null : ' acknowledged',
      alert.flapping ? ' flapping' : null],
    [alert.annotations?.summary, ...sent]);
}));

/** Incidents. @param {any[]} incidents @param {(id: string) => void} follow */
const incidentList = (incidents, follow) => el('ol', { class: 'timeline' }, ...incidents.map((incident) => {
  const { agents, in_alarm: ill, ended, began, members, causes } = incident;
  const state = ended ? `over after ${duration(Date.parse(ended) - Date.parse(began))}` : `${ill === null ? 'some' : count(ill)} still in alarm`;
  const why = Object.entries(causes).map(([cause, number]) => `${count(number)} ${because(cause)}`).join(', ');
  const made = entry(ended ? 'gone' : incident.state, began,
    [el('strong', { text: `${agents === null ? 'Many agents' : several(agents, 'agent')} ${incident.state}` }), ` on ${visible(incident.host)}, ${state}`],
    [why]);
  if (members.length) {
    made.append(el('details', {}, el('summary', { text: `In the order in which they fell${members.length < agents ? `, the first ${count(members.length)}` : ''}` }),
      el('ol', { class: 'fallen' }, ...members.map((member) => el('li', {}, el('time', { datetime: member.at, text: clock(member.at) }), ' ',
        named(member.name, member.id, follow), ` ${because(member.cause)}${member.in_alarm ? '' : ', well again or gone'}`)))));
  }
  return made;
}));

/** Incidents, alerts and recovery of all agents. @param {() => void} closed @param {(id: string) => void} follow opens an agent */
export function showDoings(closed, follow) {
  let timer = 0, shown = '';
  const { dialog, body } = open('Incidents, alerts, recovery', 'middle', () => { clearTimeout(timer); closed(); });
  const lists = el('div', {}, note('Asking …')), refused = el('p', { class: 'refused', role: 'status' });
  body.append(refused, lists);
  const read = async () => {
    try {
      const [{ incidents }, { alerts, matched }, { recoveries }] = await Promise.all(
        ['incidents', 'alerts', 'recoveries'].map((path) => get(path, { limit: LISTED })));
      const now = JSON.stringify([incidents, alerts, recoveries]);
      refused.textContent = '';
      // What somebody reads or has unfolded stays as it is while nothing changes.
      if (now !== shown) {
        shown = now;
        lists.replaceChildren(
          heading('Incidents'), incidents.length ? incidentList(incidents, follow) : note('At no time did many agents of one host fall at once.'),
          heading('Alerts that fire'), alerts.length ? alertList(alerts, follow) : note('None.'),
          ...(matched > alerts.length ? [note(`and ${several(matched - alerts.length, 'other')}`)] : []),
          heading('Recovery'), recoveries.length ? recoveryList(recoveries, follow) : note('Nothing was done.'));
      }
    } catch (error) {
      refused.textContent = visible(String(error.message));
    }
    if (dialog.open) timer = setTimeout(read, READ_EVERY_MS);
  };
  read();
  return dialog;
}
