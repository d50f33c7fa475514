// How an item is named and coloured.

const ARTICLE_LAST = /^(.+), (The|An|A)$/;
const GOLDEN_ANGLE_DEGREES = 137.508; // spreads neighbouring genres far apart on the colour wheel

/** The title as people say it: no "(1999)" that repeats the year, the article in front. */
export function displayTitle({ title, year }) {
  const suffix = year ? ` (${year})` : / \(\d{4}\)$/.exec(title)?.[0] ?? "";
  const bare = suffix && title.endsWith(suffix) ? title.slice(0, -suffix.length) : title;
  return bare.replace(ARTICLE_LAST, "$2 $1");
}

/** The hue of a genre in degrees, the same on every card. */
function genreHue(genre, genres) {
  const place = genres.indexOf(genre);
  const number = place >= 0 ? place : [...genre].reduce((sum, letter) => sum + letter.codePointAt(0), 0);
  return Math.round((20 + number * GOLDEN_ANGLE_DEGREES) % 360);
}

/** Give `element` the colours of an item's first two genres (grey when it has none). */
export function colour(element, item, genres) {
  const [first, second] = item.genres ?? [];
  element.classList.toggle("plain", !first);
  if (!first) return;
  const hue = genreHue(first, genres);
  element.style.setProperty("--hue", hue);
  element.style.setProperty("--hue-2", second ? genreHue(second, genres) : hue + 25);
}
