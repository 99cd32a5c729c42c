// Windows above the page: tokens, pauses, the server, the keys.

import { act, ask, forgetTokens, get, keepActing, keepReading, metrics, serverNow } from './api.js';
import { el } from './dom.js';
import { clock, count, duration, several, visible } from './format.js';

/**
 * Opens a window. It is removed when it is closed.
 * @param {string} title @param {string} kind its class @param {() => void} [closed]
 */
export function open(title, kind, closed = () => {}) {
  const heading = el('h2', { text: title, tabindex: '-1', class: 'title' });
  const body = el('div', { class: 'body' });
  const dialog = el('dialog', { class: kind, 'aria-label': title },
    el('header', {}, heading, el('button', { type: 'button', class: 'close', 'aria-label': 'Close', text: '×', onclick: () => dialog.close() })),
    body);
  dialog.addEventListener('close', () => {
    dialog.remove();
    closed();
  });
  dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  heading.focus();
  return { dialog, heading, body };
}

/** A field with its label. */
const field = (label, input, hint = null) =>
  el('label', { class: 'field' }, el('span', { text: label }), input, hint ? el('small', { text: hint }) : null);

/** A form whose buttons are at its end. */
function form(submit, ...children) {
  const made = el('form', { method: 'dialog', novalidate: true }, ...children.filter(Boolean));
  made.addEventListener('submit', (event) => {
    event.preventDefault();
    submit();
  });
  return made;
}

/** Asks for the token or password that opens the server for reading. */
ask.reading = (wrong) => new Promise((done) => {
  const name = el('input', { autocomplete: 'off', spellcheck: 'false' });
  const secret = el('input', { type: 'password', autocomplete: 'off' });
  const { dialog, body } = open('This server wants to know who reads', 'small', done);
  body.append(form(() => {
    if (!secret.value) return secret.focus();
    keepReading(name.value.trim(), secret.value.trim());
    dialog.close();
  },
  wrong ? el('p', { class: 'refused', text: 'The server did not accept that.' }) : null,
  el('p', { text: 'It answers those who show its token, or a name and a password. What you enter stays in this tab.' }),
  field('Token, or password', secret),
  field('Name, for a password only', name),
  el('div', { class: 'buttons' }, el('button', { class: 'main', text: 'Read' }))));
  secret.focus();
});

/** Asks for the token that acts. */
ask.acting = (wrong) => new Promise((done) => {
  let given = false;
  const secret = el('input', { type: 'password', autocomplete: 'off' });
  const { dialog, body } = open('A token is needed to act', 'small', () => done(given));
  body.append(form(() => {
    if (!secret.value.trim()) return secret.focus();
    keepActing(secret.value.trim());
    given = true;
    dialog.close();
  },
  el('p', { class: wrong ? 'refused' : '', text: wrong ? 'The server did not accept that token. It must be the one of --api-token-file.' : 'It is in the file of --api-token-file. What you enter stays in this tab.' }),
  field('Token', secret),
  el('div', { class: 'buttons' },
    el('button', { class: 'main', text: 'Go on' }),
    el('button', { type: 'button', text: 'Cancel', onclick: () => dialog.close() }))));
  secret.focus();
});

/** Asks for how long the agents of a pattern are paused, and pauses them. @param {string} pattern @param {() => void} changed */
export function askForPause(pattern, changed) {
  const { dialog, body } = open('Pause', 'small');
  const which = el('input', { value: pattern, spellcheck: 'false', autocomplete: 'off' });
  const span = el('input', { value: '1h', spellcheck: 'false', autocomplete: 'off' });
  const reason = el('input', { maxlength: 200, autocomplete: 'off' });
  const said = el('p', { class: 'said', role: 'status' });
  const buttons = el('div', { class: 'buttons' },
    el('button', { class: 'main', text: 'Pause' }),
    el('button', { type: 'button', text: 'Cancel', onclick: () => dialog.close() }));
  const made = form(async () => {
    said.className = 'said';
    said.textContent = 'Asking the server …';
    try {
      const why = reason.value.trim();
      const answer = await act('POST', 'pauses', {}, { pattern: which.value, for: span.value.trim(), ...(why ? { reason: why } : {}) });
      if (answer === null) {
        said.textContent = 'Nothing was changed.';
        return;
      }
      const { pause, warning, matches } = answer;
      made.replaceChildren(
        el('p', { class: 'done', role: 'status', text: `${several(matches.agents, 'agent')} paused until ${clock(pause.until)}.` }),
        warning ? el('p', { class: 'warning', text: visible(warning) }) : '',
        el('div', { class: 'buttons' }, el('button', { type: 'button', class: 'main', text: 'Close', onclick: () => dialog.close() })));
      made.querySelector('button').focus();
      changed();
    } catch (error) {
      said.className = 'said refused';
      said.textContent = visible(String(error.message));
    }
  },
  field('Agents', which, '* stands for any text, ? for one character'),
  field('For', span, 'such as 30m, 4h or 2d'),
  field('Reason', reason),
  el('p', { class: 'note', text: 'Paused agents are watched and shown as before, and cause neither alerts nor recovery actions.' }),
  said, buttons);
  body.append(made);
  span.focus();
  span.select();
}

/** Lists the pauses, each with a way to end it. @param {any[]} pauses @param {() => void} changed */
export function pauseList(pauses, changed) {
  if (!pauses.length) return el('p', { class: 'note', text: 'No pauses.' });
  return el('ul', { class: 'pauses' }, ...pauses.map((pause) => {
    const said = el('small', { role: 'status' });
    const end = pause.by === 'user' ? el('button', { type: 'button', text: 'End', 'aria-label': `End the pause of ${visible(pause.pattern)}`, onclick: async () => {
      try {
        if (await act('DELETE', 'pauses', { pattern: pause.pattern })) changed();
      } catch (error) {
        said.textContent = visible(String(error.message));
      }
    } }) : null;
    const from = pause.from && Date.parse(pause.from) > serverNow() ? `from ${clock(pause.from)} ` : '';
    return el('li', {}, el('bdi', { class: 'pattern', text: visible(pause.pattern) }),
      el('span', { text: `${from}${pause.until ? `until ${clock(pause.until)}` : 'without end'}${pause.by === 'user' ? '' : ', by the configuration'}` }),
      pause.reason ? el('em', { dir: 'auto', text: visible(pause.reason) }) : null, end, said);
  }));
}

/** All pauses. @param {() => void} closed @param {() => void} changed */
export function showPauses(closed, changed) {
  const { dialog, body } = open('Pauses', 'middle', closed);
  const again = () => { changed(); read(); };
  const read = async () => {
    try {
      const { pauses } = await get('pauses');
      body.replaceChildren(pauseList(pauses, again),
        el('div', { class: 'buttons' }, el('button', { type: 'button', class: 'main', text: 'Pause agents …', onclick: () => askForPause('', again) })));
    } catch (error) {
      body.replaceChildren(el('p', { class: 'refused', text: visible(String(error.message)) }));
    }
  };
  read();
  return dialog;
}

/** @param {[string, any][]} facts */
export const factList = (facts) => el('dl', { class: 'facts' },
  ...facts.filter(([, value]) => value !== null && value !== undefined && value !== '')
    .flatMap(([name, value]) => [el('dt', { text: name }), typeof value === 'object' ? el('dd', {}, value) : el('dd', { dir: 'auto', text: String(value) })]));

const NUMBERS_EVERY_MS = 5000;

/** @param {Map<string, number>} now @param {{at: number, beats: number}|null} before @param {number} beats @param {number} at */
function numbers(now, before, beats, at) {
  const of = (name) => count(now.get(name) ?? 0);
  const all = now.get('varta_frames_total') ?? 0;
  return factList([
    ['Beats now', before ? `${count(Math.round((beats - before.beats) / ((at - before.at) / 1000)))} a second` : '…'],
    ['Frames taken', count(beats)],
    ['Frames not taken', count(all - beats)],
    ['Lost in full queues', of('varta_kernel_drops_total')],
    ['Changes not passed on', of('varta_sink_dropped_total')],
    ['Times it was blind', of('varta_blind_periods_total')],
    ['Wrong verdicts', of('varta_mistakes_total')],
    ['Memory', now.has('process_resident_memory_bytes') ? `${count(Math.round(now.get('process_resident_memory_bytes') / 1048576))} MiB` : ''],
  ]);
}

/** How the server itself is. @param {() => void} closed */
export function showServer(closed) {
  let timer = 0, before = null;
  const { dialog, body } = open('The server itself', 'middle', () => { clearTimeout(timer); closed(); });
  const own = el('div', {}, el('p', { class: 'note', text: 'Asking …' })), counted = el('div'), refused = el('p', { class: 'refused' });
  body.append(own, el('h3', { text: 'What it counts since its start' }), counted, refused, el('div', { class: 'buttons' },
    sessionStorage.length ? el('button', { type: 'button', text: 'Forget the tokens of this tab', onclick: () => { forgetTokens(); location.reload(); } }) : ''));
  const read = async () => {
    try {
      const [status, sums] = await Promise.all([get('status'), metrics()]);
      const faults = status.faults.length
        ? el('ul', { class: 'plain' }, ...status.faults.map((fault) => el('li', { dir: 'auto', text: visible(fault) }))) : 'none';
      const agents = Object.entries(status.agents).filter(([, number]) => number).map(([state, number]) => `${count(number)} ${state}`);
      own.replaceChildren(factList([
        ['Ready', status.ready ? 'yes' : 'no'],
        ['Faults', faults],
        ['Version', status.version],
        ['Host', visible(status.host)],
        ['Process', status.pid],
        ['Runs for', duration(status.uptime_ms)],
        ['Agents', agents.join(', ') || 'none'],
        ['In alarm', count(status.alarms_in_all)],
        ['Pauses in force', count(status.pauses)],
      ]));
      const at = performance.now(), beats = sums.get('varta_frames_total/accepted') ?? 0;
      counted.replaceChildren(numbers(sums, before, beats, at));
      before = { at, beats };
      refused.textContent = '';
    } catch (error) {
      refused.textContent = visible(String(error.message));
    }
    if (dialog.open) timer = setTimeout(read, NUMBERS_EVERY_MS);
  };
  read();
  return dialog;
}

const KEYS = [
  ['/', 'search'], ['g', 'go to the list of agents'], ['a', 'only those in alarm, or all'],
  ['↑ ↓ k j', 'the agent before, the next one; Page Up, Page Down, Home and End, too'], ['Enter', 'open the agent'],
  ['p', 'pause the agent that is open'], ['i', 'incidents, alerts, recovery'], ['s', 'the server itself'], ['Esc', 'close, or empty the search'], ['?', 'this help'],
];
const WORDS = [
  ['billing web-1', 'both words, in name, unit, host, value of a label, or pid'], ['name:web-*', 'names by a pattern'],
  ['label:team=payments', 'a label'], ['cause:killed', 'a cause'], ['transport:udp', 'how the beats come'],
];

/** The keys and the language of the search. @param {() => void} closed */
export function showKeys(closed) {
  const { dialog, body } = open('Keys and search', 'middle', closed);
  const table = (title, rows) => [el('h3', { text: title }),
    el('dl', { class: 'keys' }, ...rows.flatMap(([key, text]) => [el('dt', {}, el('kbd', { text: key })), el('dd', { text })]))];
  body.append(...table('Keys', KEYS), ...table('Search', WORDS));
  return dialog;
}
