// What a user has watched and turned down, newest first.

import * as api from "./api.js";
import { isWatched, row } from "./cards.js";
import { byId, plural } from "./dom.js";
import { clearError, latest } from "./notices.js";

const ASKED = 200; // also what search and similar titles know as watched
const SHOWN = 30;
const LABELS = { watch: "Watched", like: "Liked", dislike: "Not for me", click: "Opened", view: "Viewed" };

/** The kind of an event; those that came with the data set have none. */
const label = (event) => LABELS[event.event_type] ?? "Earlier";

export class History {
  #list = byId("history-items");
  #note = byId("history-note");
  #slot = {};
  #watched = new Set();

  constructor({ info, similar }) {
    this.info = info;
    this.similar = similar;
  }

  /** Whether the user shown has seen the item of this key. */
  watched = (key) => this.#watched.has(key);

  /** Show the history of `user`. Resolves to its events, or null when it could not be had. */
  async open(user) {
    const answer = await latest(this.#slot, byId("history-error"), (signal) => api.userHistory(user, ASKED, signal),
      () => this.open(user));
    const events = answer?.history ?? [];
    this.#watched = new Set(events.filter(isWatched).map((event) => String(event[this.info.id_field])));
    this.#list.replaceChildren(...events.slice(0, SHOWN).map((event) => row(event, {
      genres: this.info.genres, actions: { similar: this.similar }, detail: label(event),
    })));
    this.#note.textContent = answer ? this.#summary(events.length) : "";
    return answer && events;
  }

  #summary(count) {
    if (!count) return "Nothing yet.";
    return count > SHOWN ? `The newest ${SHOWN}.` : `${plural(count, "title")}.`;
  }

  clear() {
    this.#slot.controller?.abort();
    clearError(byId("history-error"));
    this.#watched = new Set();
    this.#list.replaceChildren();
    this.#note.textContent = "";
  }
}
