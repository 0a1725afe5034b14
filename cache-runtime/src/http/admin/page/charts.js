// Charts as SVG. Nothing here knows where the numbers come from.

const SVG = "http://www.w3.org/2000/svg";

/** @param {string} name @param {Record<string, string | number>} attributes @param {...(Node | string)} children */
export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.append(...children);
  return element;
}

/** The hit rates of the last samples in percent; -1 is a sample without reads. */
export function sparkline(rates, kept = 120) {
  const start = kept - rates.length;
  let path = "";
  let open = false;
  rates.forEach((rate, index) => {
    if (rate < 0) { open = false; return; }
    const point = `${start + index} ${(21 - rate / 5).toFixed(1)}`;
    path += open ? `L${point}` : `M${point}h.6`;
    open = true;
  });
  const known = rates.filter((rate) => rate >= 0);
  const label = known.length ? `Hit rate from ${known[0]} % to ${known.at(-1)} %` : "No reads";
  return svg("svg", { class: "spark", viewBox: `0 0 ${kept} 22`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("path", { d: path || "M0 0" }));
}

/** How many operations took how long, by time. */
export function heat({ steps, samples, kept }) {
  const [left, top, width, row] = [60, 4, 480, 15];
  const rows = steps.length + 1;
  const height = rows * row;
  const most = Math.max(1, ...samples.flat());
  const slow = steps.indexOf("100 ms") + 1;
  const y = (step) => top + (rows - 1 - step) * row;
  const parts = [svg("rect", { class: "frame", x: left, y: top, width, height })];
  steps.forEach((name, step) => {
    if (step % 2 === 0) parts.push(svg("text", { x: left - 6, y: y(step) + 4, "text-anchor": "end" }, name));
  });
  let [all, late] = [0, 0];
  samples.forEach((counts, index) => {
    const x = left + width - (samples.length - index) * (width / kept);
    counts.forEach((count, step) => {
      all += count;
      if (step >= slow) late += count;
      if (!count) return;
      const share = 0.15 + 0.85 * (Math.log1p(count) / Math.log1p(most));
      parts.push(svg("rect", { class: step >= slow ? "cell slow" : "cell", x: x.toFixed(1), y: y(step), width: width / kept, height: row, "fill-opacity": share.toFixed(2) }));
    });
  });
  const line = y(slow) + row;
  parts.push(svg("line", { class: "limit", x1: left, x2: left + width, y1: line, y2: line }));
  parts.push(svg("text", { x: left + 4, y: line - 4 }, "100 ms"));
  parts.push(svg("text", { x: left, y: top + height + 14 }, "10 minutes ago"));
  parts.push(svg("text", { x: left + width, y: top + height + 14, "text-anchor": "end" }, "now"));
  const label = `${all} operations in the last minutes, ${late} of them slower than 100 ms`;
  return svg("svg", { viewBox: `0 0 ${left + width + 8} ${top + height + 20}`, role: "img", "aria-label": label }, ...parts);
}

/** The modes of the cache over time, on one line. */
export function timeline(periods) {
  const span = Math.max(60, ...periods.map((period) => period.began_seconds_ago));
  const x = (ago) => 4 + 540 * (1 - Math.min(ago, span) / span);
  const bands = periods.map((period) => {
    const [from, to] = [x(period.began_seconds_ago), x(period.ended_seconds_ago ?? 0)];
    return svg("rect", { class: `band ${period.mode}`, x: from, y: 4, width: Math.max(1.5, to - from), height: 22 });
  });
  const last = periods.at(-1);
  const outages = periods.filter((period) => period.mode === "fallback").length;
  const label = `${outages} periods in fallback mode; now ${last ? last.mode : "unknown"}`;
  return svg("svg", { viewBox: "0 0 548 46", role: "img", "aria-label": label }, ...bands,
    svg("text", { x: 4, y: 42 }, `${Math.round(span / 60)} min ago`),
    svg("text", { x: 544, y: 42, "text-anchor": "end" }, "now"));
}
