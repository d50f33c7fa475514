// One line in place when something fails, with a way to try again where that makes sense.

import { h } from "./dom.js";

/**
 * Show `error` in `line`, after `what` did not happen because of it; `retry` is offered when
 * the same request may succeed later.
 */
export function showError(line, error, retry = null, what = "") {
  const again = () => {
    clearError(line);
    retry();
  };
  const offer = retry && error.retryable;
  line.replaceChildren(
    h("span", {}, what, error.message),
    ...(offer ? [h("button", { type: "button", class: "retry", onclick: again }, "Try again")] : []),
  );
  line.hidden = false;
}

export function clearError(line) {
  line.hidden = true;
  line.replaceChildren();
}

/**
 * Run `work(signal)` so that only the latest call on `slot` counts: an earlier one still
 * under way is aborted. Resolves to the answer, or to null when it failed (the line says
 * why) or when a later call took its place.
 */
export async function latest(slot, line, work, retry) {
  slot.controller?.abort();
  const controller = new AbortController();
  slot.controller = controller;
  try {
    const answer = await work(controller.signal);
    if (controller.signal.aborted) return null;
    clearError(line);
    return answer;
  } catch (error) {
    if (!controller.signal.aborted) showError(line, error, retry);
    return null;
  }
}

// Back online: what failed while there was no network is tried again by itself.
window.addEventListener("online", () => {
  for (const button of document.querySelectorAll(".error:not([hidden]) .retry")) button.click();
});
