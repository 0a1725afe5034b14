// What a person can do on the page. Each call names its outcome in the section that it belongs to.

import { by, bytes, count, fill, h, none, table, time } from "./sections.js";

/** Calls the API. A problem becomes an error with its sentence. */
async function call(path, body) {
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  const response = await fetch(path, options);
  const value = await response.json();
  if (!response.ok) throw new Error(value.detail ?? `status ${response.status}`);
  return value;
}

/** Does something and writes its outcome, or why it failed, into an element. */
async function tell(id, action) {
  const place = by(id);
  try {
    place.replaceChildren(...[await action()].flat());
    place.classList.remove("bad");
  } catch (error) {
    place.replaceChildren(error.message);
    place.classList.add("bad");
  }
}

const query = (path, values) => `${path}?${new URLSearchParams(Object.entries(values).filter(([, value]) => value))}`;
const isPattern = (text) => /[*?]/.test(text);
const target = (text) => (isPattern(text) ? { pattern: text } : { key: text });

function evict(form) {
  const [input, tag, now] = [by("evict-pattern"), by("evict-tag"), by("evict-now")];
  // What was counted is what can be evicted.
  for (const changed of [input, tag]) changed.addEventListener("input", () => { now.disabled = true; });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const isDry = event.submitter?.value !== "evict";
    const [text, isTag] = [input.value.trim(), tag.checked];
    tell("evict-result", async () => {
      const done = await call("api/evict", { ...(isTag ? { tag: text } : target(text)), dry_run: isDry });
      now.disabled = !isDry || input.value.trim() !== text || tag.checked !== isTag;
      if (isTag && isDry) return `The entries with the tag ${text} are not counted. Nothing was evicted.`;
      if (isTag && done.outcome === "applied") return `No entry with the tag ${text} is served any more.`;
      if (isDry) return `${done.is_complete ? "" : "At least "}${count(done.keys)} entries match ${text}. Nothing was evicted.`;
      return done.outcome === "applied" ? `${count(done.keys)} keys were removed.` : "Redis is unavailable: the eviction waits in the journal. This process serves no matching entry.";
    });
  });
}

function keys(form) {
  const shown = [];
  const list = async (cursor) => {
    const page = await call(query("api/keys", { pattern: by("keys-pattern").value.trim(), cursor }));
    shown.push(...page.keys);
    const rows = shown.map((entry) => [h("button", { type: "button", class: "small key", onclick: () => tell("found-keys", () => one(entry.key)) }, entry.key), entry.kind, time(entry.age_ms / 1000), entry.fresh_ms ? time(entry.fresh_ms / 1000) : "stale"]);
    const more = page.cursor && h("button", { type: "button", onclick: () => tell("found-keys", () => list(page.cursor)) }, "More");
    return [shown.length ? table(["Key", "Kind", "Age", "TTL"], rows) : none(page.cursor ? "No key in this part of the keyspace." : "No key matches."), more || ""];
  };
  const one = async (key) => {
    const entry = await call(query("api/entry", { key }));
    const items = [["Key", entry.key], ["Kind", entry.kind], ["Age", time(entry.age_ms / 1000)], ["TTL", entry.fresh_ms ? time(entry.fresh_ms / 1000) : "stale"], ["Removed in", entry.expires_ms === null ? "never" : time(entry.expires_ms / 1000)], ["Size", bytes(entry.bytes)], ["Load took", time(entry.load_ms / 1000)]];
    if (entry.is_off) items.push(["Switched off", "yes"]);
    if (entry.is_journaled) items.push(["Its eviction waits for Redis", "yes"]);
    const value = entry.value === undefined ? "" : h("pre", { class: "key", tabindex: 0 }, JSON.stringify(entry.value, null, 2));
    return [h("dl", { class: "strip" }, ...items.map(([name, text]) => h("div", {}, h("dt", {}, name), h("dd", { class: "key" }, text)))), value, h("button", { type: "button", onclick: () => form.requestSubmit() }, "Back to the list")];
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    shown.length = 0;
    tell("found-keys", () => list());
  });
}

function sessions(form, mayWrite) {
  const list = async (user) => {
    const found = await call(query("api/sessions", { user }));
    const end = (id) => tell("found-sessions", async () => {
      const done = await call("api/sessions/end", id ? { user, id } : { user });
      return [none(`${count(done.ended)} sessions of ${user} ended.`), ...(await list(user))];
    });
    const rows = found.sessions.map((session) => [session.user_agent ?? "–", session.ip_address ?? "–", new Date(session.last_activity).toLocaleString("en"), mayWrite() ? h("button", { type: "button", class: "small", onclick: () => end(session.id) }, "End") : ""]);
    if (!rows.length) return [none(`${user} has no session.`)];
    return [table(["Browser", "Address", "Last used", "End"], rows), mayWrite() ? h("button", { type: "button", class: "danger", onclick: () => end() }, "End all") : ""];
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    tell("found-sessions", () => list(by("user").value.trim()));
  });
}

async function clients(policy, mayWrite) {
  const found = await call(query("api/limits/top", { policy }));
  if (!found.clients.length) return none(`${policy} has rejected nobody.`);
  const reset = (client) => tell("clients", async () => {
    await call("api/limits/reset", { policy, client });
    return none(`${client} may send requests again.`);
  });
  return table(["Client", "Rejected", "Reset"], found.clients.map(({ client, rejected }) => [h("span", { class: "key" }, client), count(rejected), mayWrite() ? h("button", { type: "button", class: "small", onclick: () => reset(client) }, "Reset") : ""]));
}

let role = "read";
const mayWrite = () => role === "write";

/** Connects the forms once. */
export function connect() {
  evict(by("evict"));
  keys(by("keys"));
  sessions(by("find-sessions"), mayWrite);
  by("switch-off").addEventListener("submit", (event) => {
    event.preventDefault();
    const pattern = by("switch-pattern").value.trim();
    tell("switch-result", async () => { await call("api/switches/off", { pattern }); return `${pattern} is off.`; });
  });
  by("census").addEventListener("click", () => tell("usage", async () => {
    by("usage").textContent = "Counting";
    const usage = await call("api/usage");
    const rows = usage.functions.map((row) => [row.cache === null ? "entries of no function" : h("span", { class: "key" }, row.cache), count(row.keys), bytes(row.mean_bytes), bytes(row.estimated_bytes)]);
    return [rows.length ? table(["Key", "Entries", "Mean size", "Estimate"], rows) : none("There are no entries."), usage.is_complete ? "" : none("Only a part of the keys was counted.")];
  }));
}

/** Shows what depends on the view: the role, switches, policies and jobs. */
export function update(view) {
  role = view.role;
  for (const form of document.querySelectorAll(".write")) form.hidden = !mayWrite();
  by("logout").hidden = !view.can.log_out;
  by("find-sessions").hidden = !view.can.sessions;
  fill("off", [view.off, role], () => (view.off.length
    ? view.off.map((pattern) => h("li", {}, h("span", { class: "key" }, pattern), mayWrite() ? h("button", { type: "button", class: "small", "aria-label": `Switch on ${pattern}`, onclick: () => tell("switch-result", async () => { await call("api/switches/on", { pattern }); return `${pattern} is on.`; }) }, "Switch on") : null))
    : [h("li", { class: "none" }, "Nothing is off.")]));
  const limits = view.limits.map(({ policy, allowed, limited, blocked, unavailable }) => [policy, allowed, limited + blocked, unavailable]);
  fill("limits", [limits, view.can.limits], () => (limits.length
    ? table(["Policy", "Allowed", "Rejected", "Unavailable"], limits.map(([policy, ...counts]) => [view.can.limits ? h("button", { type: "button", class: "small", "aria-label": `Most limited clients of ${policy}`, onclick: () => tell("clients", () => clients(policy, mayWrite)) }, policy) : policy, ...counts.map(count)]))
    : none("There is no limiter.")));
  const jobs = view.jobs.map(({ name, running_seconds, last }) => [name, running_seconds !== null, last?.error ?? null, last?.loaded ?? null, last?.fresh ?? null, last?.failed ?? null]);
  fill("jobs", [jobs, role], () => (jobs.length
    ? jobs.map(([name, isRunning, error, loaded, fresh, failed]) => h("p", {}, h("strong", {}, name), " ", isRunning ? "is running " : error ? `${error} ` : loaded !== null ? `${loaded} loaded, ${fresh} fresh, ${failed} failed ` : "has not run ",
      mayWrite() ? h("button", { type: "button", class: "small", disabled: isRunning, "aria-label": `Run now: ${name}`, onclick: () => tell("job-result", async () => { await call(`api/jobs/${encodeURIComponent(name)}/run`, {}); return `${name} was started.`; }) }, "Run now") : null))
    : none("No job is registered.")));
}
