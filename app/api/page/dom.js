// Building elements without markup strings: nothing a title holds can become HTML,
// and nothing here needs a looser Content-Security-Policy.

export const byId = (id) => document.getElementById(id);

/** Make an element. Properties that start with "on" are listeners, the rest attributes; null and false are left out. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
