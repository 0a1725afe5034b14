// Starts the page: paints the view that came with it, and then one view per second.

import { by, render } from "./sections.js";
import { connect, update } from "./tools.js";

/** A view that is older is not live. */
const PATIENCE = 5000;

let last = Date.now();

function show(view) {
  last = Date.now();
  render(view);
  update(view);
}

show(JSON.parse(by("view").textContent));
connect();

/** A browser gives up after a response other than 200, such as that of a busy service. */
const RETRY = 3000;

function listen() {
  const events = new EventSource("api/events");
  events.addEventListener("message", (event) => show(JSON.parse(event.data)));
  events.addEventListener("error", () => { if (events.readyState === EventSource.CLOSED) setTimeout(listen, RETRY); });
}
listen();

function state() {
  const isLive = Date.now() - last < PATIENCE;
  const text = isLive ? "Live" : "Reconnecting";
  by("live").classList.toggle("on", isLive);
  if (by("live").textContent !== text) by("live").textContent = text;
}
state();
setInterval(state, 1000);
