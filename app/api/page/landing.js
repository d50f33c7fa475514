// What somebody sees before there is a user: what most people watch.

import * as api from "./api.js";
import { card } from "./cards.js";
import { byId } from "./dom.js";
import { latest } from "./notices.js";

const SHOWN = 12;

export class Landing {
  #slot = {};

  constructor({ info, actions }) {
    this.info = info;
    this.actions = actions;
  }

  async open() {
    const answer = await latest(this.#slot, byId("landing-error"),
      (signal) => api.popular(SHOWN, signal), () => this.open());
    if (!answer) return;
    byId("landing-items").replaceChildren(...answer.items.map((item) => card({ ...item, score: null }, {
      key: String(item[this.info.id_field]), genres: this.info.genres, actions: this.actions,
    })));
  }
}
