// The slate of one user: asks for it, draws it, and keeps the reader's place when it changes.

import * as api from "./api.js";
import { card } from "./cards.js";
import { byId, h, plural } from "./dom.js";
import { Filters } from "./filters.js";
import { latest } from "./notices.js";

const PAGE = 12; // cards that "Show more" adds
const MOVE_MS = 380;

const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

export class Slate {
  #list = byId("slate-items");
  #note = byId("slate-note");
  #more = byId("slate-more");
  #slot = {};
  #user = null;
  #count = PAGE;

  /** `actions` as of a card; `noun` is what an item is called. */
  constructor({ info, noun, actions }) {
    this.info = info;
    this.noun = noun;
    this.actions = actions;
    this.filters = new Filters(info.genres, () => this.refresh());
    this.#more.addEventListener("click", () => this.#showMore());
  }

  /** Open the slate of `user` from its beginning. */
  async open(user) {
    this.#user = user;
    this.#count = PAGE;
    byId("slate-title").textContent = `For user ${user}`;
    byId("slate-status").replaceChildren();
    this.#note.textContent = "";
    this.#more.hidden = true;
    this.#list.replaceChildren(...Array.from({ length: 6 }, () =>
      h("li", { class: "card waiting", "aria-hidden": "true" })));
    return this.refresh();
  }

  /**
   * Ask again and redraw. `after` is the line to say when the change comes from feedback;
   * what was not there before is then marked. Resolves to the answer, or null.
   */
  async refresh({ after = null } = {}) {
    const body = { user_id: this.#user, num_recommendations: this.#count, ...this.filters.request() };
    const started = performance.now();
    this.#list.setAttribute("aria-busy", "true");
    const answer = await latest(this.#slot, byId("slate-error"),
      (signal) => api.recommend(body, signal), () => this.refresh({ after }));
    if (answer) {
      this.#status(answer, performance.now() - started);
      this.#draw(answer.recommendations, after);
    } else {
      for (const waiting of this.#list.querySelectorAll(".waiting")) waiting.remove();
    }
    this.#list.removeAttribute("aria-busy");
    return answer;
  }

  async #showMore() {
    const before = this.#list.children.length;
    this.#count += PAGE;
    await this.refresh();
    this.#list.children[before]?.focus();
  }

  #draw(items, after) {
    const old = new Map([...this.#list.querySelectorAll("[data-key]")]
      .map((element) => [element.dataset.key, element.getBoundingClientRect()]));
    const place = this.#focusPlace();
    const scores = items.map((item) => item.score).filter((score) => score !== null);
    const [low, high] = [Math.min(...scores), Math.max(...scores)];
    let arrivals = 0;
    this.#list.replaceChildren(...items.map((item) => {
      const key = String(item[this.info.id_field]);
      const arrived = after !== null && !old.has(key);
      arrivals += arrived ? 1 : 0;
      // The best has a full bar and the last a short one: scores have no fixed scale.
      const share = high > low && item.score !== null ? 0.15 + 0.85 * (item.score - low) / (high - low) : 1;
      return card(item, { key, genres: this.info.genres, actions: this.actions, share, arrived });
    }));
    this.#say(items.length, after, arrivals);
    this.#more.hidden = items.length < this.#count;
    this.#move(old);
    this.#restoreFocus(place);
  }

  #say(count, after, arrivals) {
    if (!count) {
      this.#note.replaceChildren(`No ${this.noun} fits. `, h("button", {
        type: "button", onclick: () => this.filters.clear(),
      }, "Clear the filters"));
    } else if (after !== null) {
      this.#note.textContent = `${after} ${arrivals ? plural(arrivals, `new ${this.noun}`) : "No new one"} in the slate.`;
    } else {
      this.#note.textContent = `${plural(count, this.noun)} in the slate.`;
    }
  }

  #status(answer, elapsed_ms) {
    const degraded = answer.degraded ?? [];
    byId("slate-status").replaceChildren(
      h("span", { class: "strategy" }, answer.strategy),
      h("span", {}, `model ${answer.model_version}`),
      h("span", {}, `${answer.latency_ms.toFixed(1)} ms in the service, ${elapsed_ms.toFixed(0)} ms in all`),
      ...(degraded.length ? [h("span", { class: "degraded" }, `running without: ${degraded.join(", ")}`)] : []));
  }

  /** Where the keyboard is in the list: the card, its place and which of its buttons. */
  #focusPlace() {
    const focused = document.activeElement;
    const element = focused?.closest("#slate-items > .card");
    if (!element) return null;
    return {
      key: element.dataset.key,
      index: [...this.#list.children].indexOf(element),
      action: focused.dataset.action,
    };
  }

  #restoreFocus(place) {
    if (!place) return;
    const same = this.#list.querySelector(`[data-key="${CSS.escape(place.key)}"]`);
    const button = same?.querySelector(`[data-action="${place.action}"]`);
    // The card is gone: the one now in its place, not its button, so that a held key presses nothing.
    const next = this.#list.children[Math.min(place.index, this.#list.children.length - 1)];
    (button ?? same ?? next ?? byId("slate-title")).focus({ preventScroll: true });
  }

  /** Slide the cards that stay from where they were, let the others appear. */
  #move(old) {
    if (calm() || !old.size) return;
    for (const element of this.#list.children) {
      const from = old.get(element.dataset.key);
      const to = element.getBoundingClientRect();
      const frames = from
        ? [{ translate: `${from.left - to.left}px ${from.top - to.top}px` }, { translate: "0 0" }]
        : [{ opacity: 0, scale: 0.94 }, { opacity: 1, scale: 1 }];
      element.animate(frames, { duration: MOVE_MS, easing: "cubic-bezier(.2,.8,.2,1)" });
    }
  }
}
