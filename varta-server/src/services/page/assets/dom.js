// Elements are made here, and texts put into them as texts: no markup is ever parsed.

const SVG = 'http://www.w3.org/2000/svg';

/** The element of the page with this id. @param {string} id @returns {any} */
export const byId = (id) => document.getElementById(id);

/**
 * An element with attributes and children; a string is a text. `class`, `text` and `on…` are special, `null` and `false` leave an
 * attribute out.
 * @param {string} name @param {Record<string, any>} [attributes] @param {...(Node|string|null)} children
 * @returns {any}
 */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === 'class') made.className = value;
    else if (key === 'text') made.textContent = value;
    else if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? '' : String(value));
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** An element of SVG. @param {string} name @param {Record<string, string|number>} attributes @param {...Node} children @returns {any} */
export function svg(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.append(...children);
  return made;
}

/** Sets a text where it is another one. @param {Node & {shown?: string}} node @param {string} text */
export function say(node, text) {
  if (node.shown !== text) {
    node.shown = text;
    node.textContent = text;
  }
}

/** A function that does something once before the next picture, however often it is called; and soon where there are no pictures. @param {() => void} act */
export function gathered(act) {
  let isDue = false;
  const run = () => {
    if (isDue) act();
    isDue = false;
  };
  return () => {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(run);
    setTimeout(run, 250);
  };
}

/** Shapes of the states, so that no state is told by its color alone. In a box of 12 by 12. */
const SHAPES = {
  up: 'M6 2a4 4 0 1 1 0 8a4 4 0 1 1 0-8z',
  degraded: 'M6 1.5a4.5 4.5 0 1 1 0 9a4.5 4.5 0 1 1 0-9zM6 3v6a3 3 0 0 0 0-6z',
  critical: 'M6 .8l5.6 10.2h-11.2zM5.4 4.4v3.4h1.2v-3.4zM5.4 8.600v1.2h1.2v-1.2z',
  stalled: 'M6 .5l5.5 5.5l-5.5 5.5l-5.5-5.5z',
  down: 'M1.8.6l4.2 4.2l4.2-4.2l1.2 1.2l-4.2 4.2l4.2 4.2l-1.2 1.2l-4.2-4.2l-4.2 4.2l-1.2-1.2l4.2-4.2l-4.2-4.2z',
  gone: 'M6 1.5a4.5 4.5 0 1 1 0 9a4.5 4.5 0 1 1 0-9zM6 2.9a3.1 3.1 0 1 0 0 6.2a3.1 3.1 0 1 0 0-6.2z',
  unknown: 'M2.8 4a3.2 3.2 0 1 1 4 3.1v1.1h-1.6v-2.4a1.7 1.7 0 1 0-.8-1.8zM5.2 9.4h1.6v1.8h-1.6z',
  expected: 'M1 5h2.4v2h-2.4zM4.8 5h2.4v2h-2.4zM8.6 5h2.4v2h-2.4z',
};

/** A mark that `setMark` gives a shape. */
export function mark() {
  return svg('svg', { class: 'mark', viewBox: '0 0 12 12', 'aria-hidden': 'true' }, svg('path', { 'fill-rule': 'evenodd' }));
}

/** @param {any} made a mark @param {string} look */
export function setMark(made, look) {
  if (made.look === look) return;
  made.look = look;
  made.setAttribute('data-look', look);
  made.firstChild.setAttribute('d', SHAPES[look] ?? SHAPES.unknown);
}
