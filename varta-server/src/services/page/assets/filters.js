// What is shown of the agents, and in which order: as it stands in the address, in the tools, and in a request.

/** The states, as the buttons have them. */
export const STATES = ['up', 'stalled', 'down', 'unknown', 'expected', 'gone'];

/** Orders, and what they are called. */
export const SORTS = {
  problem: 'worst first',
  name: 'name',
  '-silence': 'longest silence',
  '-since': 'latest change',
  since: 'oldest change',
  '-payload': 'largest payload',
  '-lost': 'most beats lost',
};

/** Words of the search that are filters of their own, as in `cause:killed`. */
const KEYS = ['name', 'label', 'transport', 'cause', 'state'];
const MAX_SEARCH = 200;

/** @typedef {{states: string[], alarm: boolean, search: string, sort: string}} Filters */

/** Reads the part of the address behind `#`. @param {string} hash @returns {Filters & {agent: string|null, view: string|null}} */
export function fromHash(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ''));
  const sort = given.get('sort') ?? 'problem';
  return {
    states: (given.get('state') ?? '').split(',').filter((state) => STATES.includes(state)),
    alarm: given.get('problem') === 'any',
    search: (given.get('search') ?? '').slice(0, MAX_SEARCH),
    sort: /^-?(problem|name|silence|since|pid|payload|lost)$/.test(sort) ? sort : 'problem',
    agent: given.get('agent'),
    view: given.get('view'),
  };
}

/** The part of the address for these. @param {Filters} filters @param {{agent?: string|null, view?: string|null}} [open] */
export function toHash({ states, alarm, search, sort }, open = {}) {
  const given = new URLSearchParams();
  if (states.length) given.set('state', states.join(','));
  if (alarm) given.set('problem', 'any');
  if (search) given.set('search', search);
  if (sort !== 'problem') given.set('sort', sort);
  if (open.agent) given.set('agent', open.agent);
  if (open.view) given.set('view', open.view);
  const text = given.toString();
  return text ? `#${text}` : '#';
}

/** The parameters of `agents` for these. @param {Filters} filters @returns {Record<string, string>} */
export function toRequest({ states, alarm, search, sort }) {
  /** @type {Record<string, string>} */
  const wanted = {};
  if (states.length) wanted.state = states.join(',');
  if (alarm) wanted.problem = 'any';
  const words = [];
  for (const word of search.split(/\s+/).filter(Boolean)) {
    const [, key, value] = word.match(/^([a-z]+):(.+)$/) ?? [];
    if (KEYS.includes(key)) wanted[key] = value;
    else words.push(word);
  }
  if (words.length) wanted.search = words.join(' ');
  wanted.sort = sort;
  return wanted;
}

/** Whether all agents are shown. @param {Filters} filters */
export const isAll = ({ states, alarm, search }) => !states.length && !alarm && !search.trim();
