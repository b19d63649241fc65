/* Keeps a page up to date: a stream sends #live after each change, and the page is morphed. Without a stream the page fetches
   itself every few seconds; an unchanged page answers 304. A hidden page has no stream (the extension closes it) and fetches
   nothing. Without JavaScript the page is complete. */
(() => {
  "use strict";
  const POLL_MS = 4000, SPREAD_MS = 400, SILENT_MS = 5000;
  const words = document.getElementById("words").dataset;
  let stream = document.getElementById("stream");
  const mark = document.getElementById("live-mark");
  const RENDER_CACHE_MS = Number(words.renderCacheMs);
  let connected = false, away = false, messageAt = 0, refreshing = false, heardAt = 0, refreshedAt = 0, timer = 0;

  const fill = (text, values) => text.replace(/%\((\w+)\)s/g, (whole, name) => values[name] ?? whole);
  const live = () => document.getElementById("live");

  function setConnected(now) {
    connected = now && !away;
    mark.hidden = false;
    mark.classList.toggle("on", connected);
    mark.textContent = connected ? mark.dataset.live : mark.dataset.polling;
  }

  // The server may answer with a rendering up to RENDER_CACHE_MS old, so the page waits that long after a change before it asks.
  function refresh() {
    heardAt = performance.now();
    plan();
  }

  function plan() {
    if (timer || refreshing) return;
    timer = setTimeout(fetchPage, Math.max(RENDER_CACHE_MS + Math.random() * SPREAD_MS, refreshedAt + SPREAD_MS - performance.now()));
  }

  function fetchPage() {
    timer = 0;
    if (!live() || document.hidden) return;
    refreshing = true;
    refreshedAt = performance.now();
    htmx.trigger(live(), "refresh");
    refreshSheets();
  }

  function refreshSheets() {
    for (const piece of document.querySelectorAll(".sheet")) {
      const { top, bottom } = piece.getBoundingClientRect();
      if (bottom > 0 && top < innerHeight && piece.querySelector(".pending")) htmx.trigger(piece, "refresh");
    }
  }

  function refreshed() {
    if (!refreshing) return;
    refreshing = false;
    if (heardAt + RENDER_CACHE_MS > refreshedAt) plan();
  }

  function showProgress(data) {
    const { subject, step, steps } = JSON.parse(data);
    for (const element of document.querySelectorAll(`[data-job="${CSS.escape(subject)}"]`)) {
      const bar = element.querySelector("progress"), label = element.querySelector("small");
      if (bar) { bar.max = steps; bar.value = step; }
      if (label) label.textContent = fill(words.step, { step, steps });
    }
  }

  function age(seconds) {
    const s = Math.max(0, Math.round(seconds));
    if (s < 60) return fill(words.s, { n: s });
    if (s < 3600) return fill(words.min, { n: Math.floor(s / 60) });
    if (s < 86400) return fill(words.h, { n: Math.floor(s / 3600) });
    return fill(words.d, { n: Math.floor(s / 86400) });
  }

  function showAges() {
    const now = Date.now() / 1000;
    for (const element of document.querySelectorAll("time[data-ago], time[data-age]")) {
      const { ago, age: since } = element.dataset;
      const text = ago ? fill(words.ago, { age: age(now - ago) }) : age(now - since);
      if (element.textContent !== text) element.textContent = text;
      if (!element.title) element.title = new Date((ago || since) * 1000).toLocaleString(words.lang);
    }
  }

  // a <details> that the reader opened stays open when the page is morphed
  document.addEventListener("htmx:before:swap", () => {
    for (const element of document.querySelectorAll("#live details[id]")) opened.set(element.id, element.open);
  });
  const opened = new Map();
  document.addEventListener("htmx:after:swap", () => {
    for (const [id, open] of opened) { const element = document.getElementById(id); if (element) element.open = open; }
    showAges();
  });
  document.addEventListener("htmx:finally:request", (event) => { if (event.target === live() || event.detail?.ctx?.sourceElement === live()) refreshed(); });

  // The stream of another address than before: the list of jobs has one as soon as it has a first row.
  function follow() {
    const at = live()?.getAttribute("hx-get"), url = at ? `/live?at=${encodeURIComponent(at)}` : "/live";
    if (stream.getAttribute("hx-sse:connect") === url) return;
    if (!stream._htmx) { stream.setAttribute("hx-sse:connect", url); return; }  // htmx has not seen it yet
    const next = stream.cloneNode(false);
    next.setAttribute("hx-sse:connect", url);
    stream.replaceWith(next);
    stream._htmx.sse?.reader?.cancel();
    stream = next;
    htmx.process(next);
  }

  async function show(text) {
    const element = live();
    if (!element || refreshing) return;
    await htmx.swap({ text, sourceElement: element, target: element, select: "#live", swap: "outerMorph" });
    refreshSheets();
    follow();
  }

  if (stream) {
    follow();
    document.addEventListener("htmx:sse:after:connection", (event) => {
      away = false;
      messageAt = performance.now();
      setConnected(event.detail.connection.status === 200);
    });
    document.addEventListener("htmx:sse:error", () => setConnected(false));
    document.addEventListener("htmx:sse:close", (event) => { if (event.target === stream) setConnected(false); });
    document.addEventListener("htmx:sse:before:message", (event) => {
      const { event: kind, data } = event.detail.message;
      messageAt = performance.now();
      if (kind === "away" || kind === "back") away = kind === "away";
      setConnected(true);
      if (kind === "beat") return;
      if (kind === "page") event.detail.waitUntil(show(data));
      else if (kind === "job.progress") showProgress(data);
      else if (kind === "changed") refresh();
      document.dispatchEvent(new CustomEvent("farm:event", { detail: { kind, data } }));
    });
    setInterval(() => {  // a network that is cut ends no stream: only its silence shows
      if (!connected || performance.now() - messageAt < SILENT_MS) return;
      setConnected(false);
      stream._htmx?.sse?.reader?.cancel();
    }, 500);
    document.addEventListener("visibilitychange", () => { if (document.hidden) setConnected(false); });
    // the extension comes back by itself from a stream that broke; from one that was refused (all taken), this does
    setInterval(() => { if (!connected && !stream._htmx?.sse) htmx.trigger(stream, "reconnect"); }, 5000);
  }
  if (live()) {
    setInterval(() => { if (!connected) refresh(); }, POLL_MS);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
  }
  document.addEventListener("farm:changed", showAges);
  document.addEventListener("farm:moved", () => { follow(); refresh(); });  // a script gave the live part another address
  setInterval(showAges, 1000);
  showAges();
})();
