// Starts the page and ties its parts together.

import * as api from "./api.js";
import { isWatched } from "./cards.js";
import { byId } from "./dom.js";
import { History } from "./history.js";
import { Landing } from "./landing.js";
import { clearError, showError } from "./notices.js";
import { Onboarding } from "./onboarding.js";
import { Search } from "./search.js";
import { Similar } from "./similar.js";
import { Slate } from "./slate.js";
import { displayTitle } from "./titles.js";
import { Users } from "./users.js";

const VIEWS = ["landing", "onboarding", "slate"];
const SUGGESTED_USERS = 20;
const SAID = { watch: "Watched", dislike: "Not for you:" };

class Page {
  user = null;

  constructor(info, knownUsers) {
    const noun = info.entity === "movie" ? "film" : info.entity;
    const watch = (item) => this.give(item, "watch");
    const dislike = (item) => this.give(item, "dislike");
    const similar = (item) => this.similar.open(item);
    this.info = info;
    this.history = new History({ info, similar });
    const watched = this.history.watched;
    this.similar = new Similar({ info, watch, watched });
    this.landing = new Landing({ info, actions: { similar } });
    this.search = new Search({ info, actions: { watch, similar }, watched });
    this.slate = new Slate({ info, noun, actions: { watch, dislike, similar } });
    this.onboarding = new Onboarding({ info, noun, actions: { watch }, onReady: () => this.firstSlate() });
    this.users = new Users(knownUsers, (user, how) => this.open(user, how));
  }

  show(view) {
    document.body.dataset.view = view;
    for (const name of VIEWS) byId(name).hidden = name !== view;
  }

  /** Show `user`: the slate, or the onboarding when there is nothing to make one from. */
  async open(user, { isNew = false } = {}) {
    this.user = user;
    this.users.remember(user);
    clearError(byId("page-error"));
    this.history.clear();
    if (user === null) {
      this.show("landing");
      return this.landing.open();
    }
    const past = this.history.open(user);
    past.then(() => this.search.run()); // what was found for somebody else has their marks
    if (!isNew) {
      this.show("slate");
      const answer = await this.slate.open(user);
      if (answer?.strategy !== "popular") return;
      if ((await past)?.some(isWatched) !== false || this.user !== user) return;
    }
    this.show("onboarding");
    byId("onboarding-title").focus();
    return this.onboarding.open(user);
  }

  async firstSlate() {
    this.show("slate");
    byId("slate-title").focus();
    await this.slate.open(this.user);
  }

  /**
   * Send feedback; once acknowledged, the slate and the history follow.
   * Resolves to false when it was not acknowledged: a line in sight says why.
   */
  async give(item, eventType) {
    const user = this.user;
    const view = document.body.dataset.view;
    const line = byId(this.similar.isOpen ? "similar-error" : `${view}-error`);
    try {
      await api.feedback(user, item[this.info.id_field], eventType);
      clearError(line);
    } catch (error) {
      showError(line, error, () => this.give(item, eventType),
        `${displayTitle(item)} was not recorded. `);
      return false;
    }
    if (this.user !== user) return true;
    const past = this.history.open(user);
    if (view === "onboarding") this.onboarding.count();
    else await this.slate.refresh({ after: `${SAID[eventType]} ${displayTitle(item)}.` });
    await past;
    return true;
  }
}

/** Ask for the key that this service wants, and start again with it. */
function askForKey() {
  const form = byId("key-form");
  form.hidden = false;
  byId("key").focus();
  form.onsubmit = (event) => {
    event.preventDefault();
    api.useKey(byId("key").value.trim());
    byId("key").value = "";
    start();
  };
}

async function start() {
  try {
    clearError(byId("page-error"));
    byId("key-form").hidden = true;
    const [info, { users }] = await Promise.all([api.info(), api.users(SUGGESTED_USERS)]);
    const page = new Page(info, users);
    byId("model").textContent = `Model ${info.model_version}`;
    window.addEventListener("popstate", () => page.open(page.users.current()));
    await page.open(page.users.current());
  } catch (error) {
    showError(byId("page-error"), error, start);
    if (error.wantsKey) askForKey();
  }
}

await start();
