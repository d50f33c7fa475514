// An item on the page: a card in a slate, or a row in a list.

import { h } from "./dom.js";
import { colour, displayTitle } from "./titles.js";

const LABELS = { watch: "Watched", dislike: "Not for me", similar: "Similar" };
const DONE_LABELS = { watch: "Watched ✓", dislike: "Noted ✓" };

const PASSING = new Set(["click", "view", "dislike"]); // events that do not say "seen"

/** Whether an event of a user's history says the item was seen. */
export const isWatched = (event) => !PASSING.has(event.event_type);

function markDone(button, action) {
  button.textContent = DONE_LABELS[action];
  button.classList.add("done");
  button.setAttribute("aria-disabled", "true"); // `disabled` would drop the keyboard's focus
}

/**
 * A button that runs `act(item)`; a press while one is under way or already done does nothing.
 * `act` resolves to false when it failed, and the button can then be pressed again.
 */
function actionButton(action, item, act, { done = false, lasting = false } = {}) {
  const button = h("button", { type: "button", "data-action": action }, LABELS[action]);
  button.setAttribute("aria-label", `${LABELS[action]}: ${displayTitle(item)}`);
  if (done) markDone(button, action);
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    const accepted = await act(item, button);
    button.removeAttribute("aria-disabled");
    if (accepted !== false && lasting) markDone(button, action);
  });
  return button;
}

function facts(item) {
  const rating = item.avg_rating ?? null;
  return h("p", { class: "facts" },
    item.year ? h("span", { class: "year" }, String(item.year)) : null,
    rating !== null ? h("span", { class: "rating" }, `★ ${rating.toFixed(1)}`) : null,
    ...(item.genres ?? []).map((genre) => h("span", { class: "genre" }, genre)),
  );
}

function whyLine(why) {
  if (!why) return null;
  const named = why.because?.title;
  const [before, ...after] = named ? why.text.split(named) : [why.text];
  const line = h("p", { class: "why" }, before);
  if (after.length) line.append(h("cite", {}, displayTitle(why.because)), after.join(named));
  if (typeof why.similarity === "number") {
    line.append(h("span", { class: "similarity" }, ` similarity ${why.similarity.toFixed(2)}`));
  }
  return line;
}

function scoreLine(score, share) {
  if (typeof score !== "number") return null;
  const bar = h("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--share", share);
  return h("p", { class: "score" }, bar, h("span", {}, `Score ${score.toFixed(2)}`));
}

/**
 * A card. `actions` maps an action ("watch", "dislike", "similar") to what it does with the
 * item; `share` in [0, 1] is the length of the score's bar; `arrived` marks what was not in
 * the slate before; `lasting` keeps a pressed button marked (the card stays).
 */
export function card(item, { key, genres, actions, share = 1, arrived = false, lasting = false }) {
  const element = h("li", { class: "card", tabindex: "-1", "data-key": key, "aria-label": displayTitle(item) },
    h("div", { class: "front", "data-year": item.year },
      arrived ? h("span", { class: "badge" }, "New") : null,
      h("h3", {}, displayTitle(item)),
      facts(item)),
    h("div", { class: "back" },
      whyLine(item.why),
      scoreLine(item.score, share),
      h("div", { class: "actions" }, ...Object.entries(actions).map(([action, act]) =>
        actionButton(action, item, act, { lasting: lasting && action !== "similar" })))));
  colour(element, item, genres);
  return element;
}

/** A row: the title, one line of detail and small buttons. `watched` marks what was seen. */
export function row(item, { genres, actions, detail = null, watched = false }) {
  const line = detail ?? [item.year, ...(item.genres ?? [])].filter(Boolean).join(" · ");
  const element = h("li", { class: "row" },
    h("div", {}, h("span", { class: "title" }, displayTitle(item)), h("span", { class: "detail" }, line)),
    h("div", { class: "actions" }, ...Object.entries(actions).map(([action, act]) =>
      actionButton(action, item, act, { done: watched && action === "watch", lasting: action === "watch" }))));
  colour(element, item, genres);
  return element;
}
