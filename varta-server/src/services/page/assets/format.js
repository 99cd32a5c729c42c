// How numbers, times and names are written.

const COUNT = new Intl.NumberFormat('en-US');
const CLOCK = new Intl.DateTimeFormat('sv-SE', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const DATE = new Intl.DateTimeFormat('sv-SE', { year: 'numeric', month: '2-digit', day: '2-digit' });

/** 12,345. @param {number} number */
export const count = (number) => COUNT.format(number);

/** `1 agent`, `12 agents`. @param {number} number @param {string} one @param {string} [many] */
export const several = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** A duration in at most two units. @param {number} ms */
export function duration(ms) {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  const two = (large, one, small, other) => (small ? `${large} ${one} ${small} ${other}` : `${large} ${one}`);
  const minutes = Math.floor(Math.round(seconds) / 60);
  if (minutes < 10) return two(minutes, 'min', Math.round(seconds) % 60, 's');
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return two(hours, 'h', minutes % 60, 'min');
  return two(Math.floor(hours / 24), 'd', hours % 24, 'h');
}

/** A bound that was set, such as a deadline: without a fraction where it has none. @param {number} ms */
export const bound = (ms) => (ms < 1000 ? `${ms} ms` : ms < 9950 && ms % 1000 === 0 ? `${ms / 1000} s` : duration(ms));

/** The time of the day, with the date if it is not today's. @param {string|null} moment RFC 3339 */
export function clock(moment) {
  if (!moment) return 'not known';
  const then = new Date(moment);
  if (Number.isNaN(then.getTime())) return 'not known';
  const day = DATE.format(then);
  return day === DATE.format(new Date()) ? CLOCK.format(then) : `${day} ${CLOCK.format(then)}`;
}

/** A share as percent, rounded towards zero: only the whole is 100 %. @param {number} share 0 to 1 */
export function percent(share) {
  if (share >= 1) return '100 %';
  const cut = Math.floor(share * 10000 + 1e-9) / 100;
  return `${cut < 10 ? cut.toFixed(1) : cut >= 99 ? cut.toFixed(2) : cut.toFixed(1)} %`;
}

/**
 * A text from outside as something that can be seen: control characters as their pictures, and what has no shape or turns the
 * direction of others by its number.
 * @param {string} text
 */
export function visible(text) {
  return text
    .replace(/[\u0000-\u0020]/g, (c) => (c === ' ' ? c : String.fromCharCode(0x2400 + c.charCodeAt(0))))
    .replace(/[\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g,
      (c) => `\\u{${c.charCodeAt(0).toString(16)}}`);
}

/** The same for texts of several lines. @param {string} text */
export const visibleLines = (text) => text.split('\n').map(visible).join('\n');

const CAUSES = {
  first_beat: 'first beat',
  reported: 'reported another status',
  recovered: 'beats again',
  restarted: 'was restarted',
  panicked: 'panicked',
  exited: 'exited',
  killed: 'killed by a signal',
  oom_killed: 'killed, out of memory',
  goodbye: 'said goodbye',
  stopped: 'stopped by a signal',
  traced: 'held by a debugger',
  frozen: 'its cgroup is frozen',
  dumping_core: 'its core is dumped',
  blocked: 'waits for a disk',
  busy: 'runs, does not beat',
  idle: 'sleeps, does not beat',
  silent: 'silent',
  unreachable: 'unreachable',
  lossy: 'its beats are lost',
  queue_full: 'the queue was full',
  observer_blind: 'the server could not see it',
  failed: 'failed',
  late: 'late',
  no_progress: 'beats and does not move',
  progressed: 'moves again',
  overran: 'takes too long',
  overlapped: 'two at once',
  never_seen: 'never came',
};

/** A cause in words. @param {string|null|undefined} cause */
export const because = (cause) => (cause ? (CAUSES[cause] ?? visible(cause.replaceAll('_', ' '))) : '');

/** What a sentence about a change says beyond who changed and how, and without its dossier. @param {any} told */
export const reason = ({ summary, dossier }) =>
  (summary ?? '').replace(/^.* went from [a-z ()]+ to [a-z ()]+: /s, '').replace(dossier ? `. ${dossier}` : '', '');

/** How an agent looks: its state, or what it reports while it is up. @param {{state: string, status?: string}} row */
export const look = (row) => (row.state === 'up' && row.status && row.status !== 'ok' ? row.status : row.state);

/** The part of its deadline that an agent has used. @param {any} row @param {number|null} silence in ms */
export function shareOf({ state, stall_after_ms: deadline }, silence) {
  if (state === 'down' || state === 'stalled') return 1;
  return silence === null || state === 'gone' ? 0 : Math.min(1, silence / deadline);
}
