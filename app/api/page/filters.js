// The filter form and the part of a request it stands for.

import { byId, h } from "./dom.js";

export class Filters {
  #form = byId("filters");

  /** `onChange` is called after every change that makes a valid form. */
  constructor(genres, onChange) {
    byId("filters-genres").replaceChildren(...genres.map((genre) =>
      h("label", { class: "chip" }, h("input", { type: "checkbox", name: "genres", value: genre }), genre)));
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    this.#form.addEventListener("change", () => this.#form.reportValidity() && this.#changed(onChange));
    // The event comes first, the fields are emptied after it.
    this.#form.addEventListener("reset", () => setTimeout(() => this.#changed(onChange)));
  }

  #changed(onChange) {
    const count = Object.keys(this.#filters()).length + (this.#value("include_watched") ? 1 : 0);
    byId("filters-count").textContent = count ? `${count} on` : "";
    onChange();
  }

  #value(name) {
    return new FormData(this.#form).get(name) || null;
  }

  #filters() {
    const filters = {};
    const genres = new FormData(this.#form).getAll("genres");
    const [from, to] = [this.#value("year_from"), this.#value("year_to")];
    if (genres.length) filters.genres = genres;
    if (this.#value("min_rating")) filters.min_rating = Number(this.#value("min_rating"));
    if (from || to) filters.years = [from && Number(from), to && Number(to)];
    return filters;
  }

  /** The fields of a POST /recommend body that this form decides. */
  request() {
    const filters = this.#filters();
    return {
      ...(Object.keys(filters).length ? { filters } : {}),
      exclude_watched: !this.#value("include_watched"),
    };
  }

  clear() {
    this.#form.reset();
  }
}
