// Finding a title by a part of it.

import * as api from "./api.js";
import { row } from "./cards.js";
import { byId, plural } from "./dom.js";
import { clearError, latest } from "./notices.js";

const LIMIT = 6;
const PAUSE_MS = 180; // of typing before a search is sent

export class Search {
  #input = byId("query");
  #list = byId("search-results");
  #note = byId("search-note");
  #slot = {};
  #timer = null;

  /** `watched(key)` tells whether the present user has seen an item. */
  constructor({ info, actions, watched }) {
    this.info = info;
    this.actions = actions;
    this.watched = watched;
    this.#input.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.run(), PAUSE_MS);
    });
  }

  async run() {
    const query = this.#input.value.trim();
    if (!query) {
      this.#slot.controller?.abort();
      clearError(byId("search-error"));
      this.#list.replaceChildren();
      this.#note.textContent = "";
      return;
    }
    const answer = await latest(this.#slot, byId("search-error"),
      (signal) => api.search(query, LIMIT, signal), () => this.run());
    const items = answer?.items ?? [];
    this.#list.replaceChildren(...items.map((item) => row(item, {
      genres: this.info.genres,
      actions: this.actions,
      watched: this.watched(String(item[this.info.id_field])),
    })));
    if (answer) this.#note.textContent = items.length ? `${plural(items.length, "title")} found` : `Nothing named “${query}”`;
  }
}
