// What a user has watched and turned down, newest first.

import * as api from "./api.js";
import { isWatched, row } from "./cards.js";
import { byId, plural } from "./dom.js";
import { clearError, latest } from "./notices.js";

const SHOWN = 30;
const LABELS = { watch: "Watched", like: "Liked", dislike: "Not for me", click: "Opened", view: "Viewed" };
const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

function detail(event) {
  const label = LABELS[event.event_type] ?? event.event_type;
  return event.timestamp ? `${label} · ${DAY.format(new Date(event.timestamp * 1000))}` : label;
}

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
    const answer = await latest(this.#slot, byId("history-error"), (signal) => this.#ask(user, signal),
      () => this.open(user));
    const events = answer?.history ?? [];
    this.#watched = new Set(events.filter(isWatched).map((event) => String(event[this.info.id_field])));
    this.#list.replaceChildren(...events.slice(0, SHOWN).map((event) => row(event, {
      genres: this.info.genres ?? [], actions: { similar: this.similar }, detail: detail(event),
    })));
    const older = events.length - SHOWN;
    this.#note.textContent = !answer ? "" : events.length
      ? `${plural(events.length, "event")}${older > 0 ? `, the newest ${SHOWN} shown` : ""}`
      : "Nothing yet.";
    return answer && events;
  }

  /** A user nobody has heard of has an empty history. */
  async #ask(user, signal) {
    try {
      return await api.userHistory(user, signal);
    } catch (error) {
      if (error.status === 404) return { history: [] };
      throw error;
    }
  }

  clear() {
    this.#slot.controller?.abort();
    clearError(byId("history-error"));
    this.#watched = new Set();
    this.#list.replaceChildren();
    this.#note.textContent = "";
  }
}
