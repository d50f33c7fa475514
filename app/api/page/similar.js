// The titles nearest to one title, in a dialog: Escape closes it and focus goes back by itself.

import * as api from "./api.js";
import { row } from "./cards.js";
import { byId } from "./dom.js";
import { latest } from "./notices.js";
import { displayTitle } from "./titles.js";

const LIMIT = 12;

export class Similar {
  #dialog = byId("similar");
  #list = byId("similar-items");
  #slot = {};

  /** `watch` is what the "Watched" button of a row does. */
  constructor({ info, watch, watched }) {
    this.info = info;
    this.watch = watch;
    this.watched = watched;
    byId("similar-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close(); // the backdrop
    });
    this.#dialog.addEventListener("close", () => this.#slot.controller?.abort());
  }

  get isOpen() {
    return this.#dialog.open;
  }

  async open(item) {
    byId("similar-title").textContent = `Like ${displayTitle(item)}`;
    this.#list.replaceChildren();
    if (!this.#dialog.open) this.#dialog.showModal();
    byId("similar-title").focus();
    const answer = await latest(this.#slot, byId("similar-error"),
      (signal) => api.similar(item[this.info.id_field], LIMIT, signal), () => this.open(item));
    if (!answer) return;
    this.#list.replaceChildren(...answer.similar.map((near) => row(near, {
      genres: this.info.genres,
      actions: { watch: this.watch, similar: (next) => this.open(next) },
      detail: [near.year, near.score?.toFixed(2), ...(near.genres ?? [])].filter(Boolean).join(" · "),
      watched: this.watched(String(near[this.info.id_field])),
    })));
  }
}
