// The first minute of a user without a history: a few clicks on known titles.

import * as api from "./api.js";
import { card } from "./cards.js";
import { byId, h, plural } from "./dom.js";
import { latest } from "./notices.js";

const SHOWN = 24;
const ENOUGH = 3; // watched titles after which the first slate is shown

export class Onboarding {
  #list = byId("onboarding-items");
  #slot = {};
  #watched = 0;

  /** `onReady` is called when there is enough to make a slate from. */
  constructor({ info, noun, actions, onReady }) {
    this.info = info;
    this.noun = noun;
    this.actions = actions;
    this.onReady = onReady;
    byId("onboarding-done").addEventListener("click", () => onReady());
  }

  async open(user) {
    this.#watched = 0;
    this.#progress();
    byId("onboarding-lead").textContent =
      `User ${user} has no history yet. Mark ${plural(ENOUGH, this.noun)} you have watched, here or ` +
      "through the search, and the first slate follows.";
    this.#list.replaceChildren();
    const answer = await latest(this.#slot, byId("onboarding-error"),
      (signal) => api.popular(SHOWN, signal), () => this.open(user));
    if (!answer) return;
    this.#list.replaceChildren(...answer.items.map((item) => card({ ...item, score: null }, {
      key: String(item[this.info.id_field]),
      genres: this.info.genres,
      actions: this.actions,
      lasting: true,
    })));
  }

  /** Count one acknowledged "watched". */
  count() {
    this.#watched += 1;
    this.#progress();
    if (this.#watched >= ENOUGH) this.onReady();
  }

  #progress() {
    byId("onboarding-steps").replaceChildren(...Array.from({ length: ENOUGH }, (_, step) =>
      h("span", { class: step < this.#watched ? "lit" : null })));
    byId("onboarding-count").textContent = `${this.#watched} of ${ENOUGH}`;
    byId("onboarding-done").hidden = this.#watched === 0;
  }
}
