// What the page shows, from one view of the cache.

import { heat, sparkline, timeline } from "./charts.js";

/** Creates an element. Texts are never markup. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") element.addEventListener("click", value);
    else if (value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const by = (id) => document.getElementById(id);

const number = new Intl.NumberFormat("en");
export const count = (value) => (value === null || value === undefined ? "–" : number.format(value));
export const percent = (rate) => (rate === null || rate === undefined ? "–" : `${(rate * 100).toFixed(1)} %`);

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${unit ? value.toFixed(1) : value} ${units[unit]}`;
}

function micros(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1000) return `${Math.round(value)} µs`;
  return value < 1e6 ? `${(value / 1000).toFixed(1)} ms` : `${(value / 1e6).toFixed(2)} s`;
}

export function time(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const sign = seconds < 0 ? "−" : "";
  const s = Math.abs(seconds);
  if (s < 1) return `${sign}${Math.round(s * 1000)} ms`;
  if (s < 60) return `${sign}${s.toFixed(1)} s`;
  if (s < 3600) return `${sign}${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
  if (s < 86400) return `${sign}${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${sign}${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export function table(heads, rows) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": heads.join(", ") },
    h("table", {}, h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, ...rows.map((cells) => h("tr", {}, ...cells.map((cell, index) => h("td", index === 0 ? { class: "text" } : {}, cell)))))));
}

export const none = (text) => h("p", { class: "none" }, text);

/** Replaces the content of an element if what it is made from has changed. So focus and selections stay. */
const made = new Map();
export function fill(id, from, make) {
  const key = JSON.stringify(from);
  if (made.get(id) === key) return;
  made.set(id, key);
  by(id).replaceChildren(...[make()].flat());
}

function status(view) {
  const { health } = view;
  const items = [
    ["Health", health.status, health.status === "healthy" ? "good" : health.status === "down" ? "bad" : "warn"],
    ["Mode", health.mode, health.mode === "fallback" ? "bad" : ""],
    ["Hit rate", percent(view.hit_rate)],
    ["Operations per minute", count(view.operations_per_minute)],
    ["Database time saved", time(view.saved_seconds)],
    ["Fallback in total", time(view.fallback.total_seconds)],
    ["Journal", count(health.journal_depth)],
    ["Up", time(view.uptime_seconds)],
    ["Process", String(view.process)],
  ];
  by("status").replaceChildren(...items.map(([name, value, kind]) => h("div", {}, h("dt", {}, name), h("dd", { class: kind ?? "" }, value))));
  const problems = [health.fallback_reason && `Redis is unavailable: ${health.fallback_reason}.`, ...health.problems].filter(Boolean);
  by("problem").hidden = problems.length === 0;
  if (by("problem").textContent !== problems.join(" ")) by("problem").textContent = problems.join(" ");
  by("environment").textContent = view.environment;
}

const rows = new Map();

function reasons(row) {
  const list = Object.entries(row.misses_by_reason ?? {});
  if (row.role !== "stores") return [h("dt", {}, "evicts"), h("dd", {}, row.cache || "all entries")];
  if (!list.length) return [h("dt", {}, "no misses")];
  return list.sort((one, other) => other[1] - one[1]).flatMap(([reason, times]) => [h("dt", {}, `miss: ${reason}`), h("dd", {}, count(times))]);
}

function functions(view) {
  const body = by("rows");
  if (rows.size === 0) body.replaceChildren();
  const seen = new Map();
  for (const row of view.functions) {
    const base = `${row.function} ${row.cache}`;
    const turn = seen.get(base) ?? 0;
    seen.set(base, turn + 1);
    const id = `${base} ${turn}`;
    let known = rows.get(id);
    const reads = row.role === "stores";
    if (!known) {
      const why = h("dl");
      const head = h("th", { scope: "row" }, h("details", {}, h("summary", {}, row.function), why), h("small", {}, row.cache || (reads ? "methods of Cache" : "all entries")));
      const cells = Array.from({ length: 7 }, () => h("td"));
      known = { why, cells, rates: "" };
      rows.set(id, known);
      body.append(h("tr", { "data-function": row.function }, head, ...cells));
    }
    const texts = [
      reads ? percent(row.hit_rate) : "", reads ? count(row.gets) : "",
      reads ? `${micros(row.hit_p50_micros)} / ${micros(row.hit_p99_micros)}` : "",
      reads ? `${micros(row.load_p50_micros)} / ${micros(row.load_p99_micros)}` : "",
      reads ? time(row.saved_seconds) : "", count(row.evictions),
    ];
    texts.forEach((text, index) => { if (known.cells[index].textContent !== text) known.cells[index].textContent = text; });
    known.cells[4].className = row.saved_seconds < 0 ? "bad" : "";
    if (known.cells[4].className) known.cells[4].title = "Hits take longer than loads: this cache costs time";
    known.why.replaceChildren(...reasons(row));
    const rates = (row.rates ?? []).join();
    if (reads && rates !== known.rates) {
      known.rates = rates;
      known.cells[6].replaceChildren(sparkline(row.rates));
    }
  }
}

function periods(view) {
  fill("periods", [view.periods.length, view.periods.at(-1)?.mode, Math.floor(view.uptime_seconds / 2)], () => {
    const outages = view.periods.filter((period) => period.mode === "fallback").reverse();
    const list = outages.slice(0, 10).map((period) => h("li", {},
      `${time(period.began_seconds_ago)} ago, `,
      period.ended_seconds_ago === null ? h("strong", { class: "bad" }, "until now") : `for ${time(period.began_seconds_ago - period.ended_seconds_ago)}`,
      period.reason ? h("span", { class: "key" }, period.reason) : null));
    return [timeline(view.periods), outages.length ? h("ol", { class: "plain" }, ...list) : none("Redis was never unavailable since the service started.")];
  });
}

function memory(view) {
  const { redis, memory: local, pool } = view;
  const items = [];
  if (local) items.push(["Entries in this process", count(local.entries)], ["Size", bytes(local.bytes)]);
  if (redis) {
    items.push(["Redis uses", bytes(redis.memory_used)], ["at most", bytes(redis.memory_peak)],
      ["maxmemory", redis.memory_max ? bytes(redis.memory_max) : "no limit"], ["Keys", count(redis.keys)], ["Evicted by Redis", count(redis.evicted_keys)]);
  }
  if (pool) items.push(["Connections", `${pool.open} of ${pool.max}`], ["Commands in flight", count(pool.in_flight)]);
  fill("memory", items, () => (items.length ? h("dl", { class: "strip" }, ...items.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))) : none("Redis has not answered yet.")));
}

export function render(view) {
  status(view);
  functions(view);
  periods(view);
  memory(view);
  fill("heat", view.latency.samples, () => heat(view.latency));
  fill("slow", view.slow.map(({ seconds_ago, ...slow }) => slow), () => (view.slow.length
    ? table(["Key", "Operation", "Took", "Ago"], view.slow.slice(0, 15).map((slow) => [h("span", {}, h("span", { class: "key" }, slow.key), h("small", {}, slow.function)), slow.operation, time(slow.millis / 1000), time(slow.seconds_ago)]))
    : none(`No operation took ${view.slow_ms} ms or longer.`)));
  fill("hot", view.hot, () => (view.hot.length
    ? table(["Key", "Hits"], view.hot.map((hot) => [h("span", { class: "key" }, hot.key), `about ${count(hot.hits)}`]))
    : none("Hits are sampled while this page is open.")));
  const { sessions } = view;
  fill("sessions", sessions, () => h("dl", { class: "strip" }, ...["created", "loaded", "destroyed", "not_found", "tampered", "unavailable"].map((name) => h("div", {}, h("dt", {}, name.replace("_", " ")), h("dd", {}, count(sessions[name]))))));
}
