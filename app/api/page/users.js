// Who the slate is for: the field, the suggestions, a new id, and ?user= in the address.

import { byId, h } from "./dom.js";

const NEW_ID_FLOOR = 1e9; // far above the ids of any published data set
const NEW_ID_SPAN = 9e9;

export class Users {
  #input = byId("user");
  #numeric;

  /**
   * `known` are some ids of the data set, as the service gives them; `onPick(user)` is called
   * with an id of the same type.
   */
  constructor(known, onPick) {
    this.onPick = onPick;
    this.#numeric = known.every((user) => typeof user === "number");
    byId("user-suggestions").replaceChildren(...known.map((user) => h("option", { value: user })));
    byId("user-choices").replaceChildren(...known.map((user) =>
      h("li", {}, h("button", { type: "button", onclick: () => onPick(user) }, String(user)))));
    byId("user-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const user = this.#parse(this.#input.value);
      if (user === null) this.#input.focus();
      else this.onPick(user);
    });
    byId("new-user").addEventListener("click", () => this.onPick(this.#fresh(), { isNew: true }));
  }

  /** The user named in the address, or null. */
  current() {
    return this.#parse(new URLSearchParams(location.search).get("user") ?? "");
  }

  /** Show `user` in the field and, unless it is there already, in the address. */
  remember(user) {
    this.#input.value = user ?? "";
    const address = user === null ? "/" : `/?${new URLSearchParams({ user })}`;
    if (address !== location.pathname + location.search) window.history.pushState(null, "", address);
    document.title = user === null ? "Marquee" : `${user} · Marquee`;
  }

  #parse(text) {
    const id = text.trim();
    if (!id) return null;
    const number = Number(id);
    return this.#numeric && String(number) === id && Number.isSafeInteger(number) ? number : id;
  }

  #fresh() {
    const [random] = crypto.getRandomValues(new Uint32Array(1));
    const number = NEW_ID_FLOOR + Math.floor((random / 2 ** 32) * NEW_ID_SPAN);
    return this.#numeric ? number : `new-${number.toString(36)}`;
  }
}
