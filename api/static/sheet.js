/* The contact sheet of a batch. Only the images near the window are in the page, so their number has no limit.
   The reader picks by keyboard (arrows, A, X, R, U, Z, space), by the bar's buttons or by touch; picks are sent to the API in groups. */
(() => {
  "use strict";
  const grid = document.getElementById("contact");
  if (!grid) return;
  const { batch } = grid.dataset, words = document.getElementById("sheet-words").dataset, bar = document.getElementById("sheet-bar");
  const finals = document.getElementById("finals"), said = document.getElementById("sheet-said"), large = document.getElementById("large");
  const SIZES = { s: [84, 128], m: [136, 256], l: [240, 512] }, GAP = 12, LABEL = 24, OVERSCAN = 2, SEND_MS = 250, LOOK_MS = 1000, FAST_PX_MS = 4;
  const RESULT = { approve: "approved", reject: "rejected", reroll: "rerolled", clear: "" };
  const KEYS = { a: "approve", p: "approve", Enter: "approve", x: "reject", Delete: "reject", r: "reroll", u: "clear", Backspace: "clear" };
  const GLYPHS = { queued: "…", held: "‖", failed: "!", cancelled: "×", running: "▸" }, OPEN = new Set(["queued", "held", "running", "validating"]);

  let chunks = [], items = [], view = [], columns = 1, rowHeight = 1, side = 136, thumb = 256, show = "all", size = "m";
  let at = 0, anchor = 0, frame = 0, lastY = scrollY, lastT = 0, speed = 0, settle = 0, sending = 0, looking = 0, lookAt = 0;
  const drawn = new Map(), waiting = new Map(), done = [];

  const fill = (text, values) => text.replace(/%\((\w+)\)s/g, (whole, name) => values[name] ?? whole);
  const count = (one, many, n) => n === 1 ? one : fill(many, { n: n.toLocaleString(document.documentElement.lang) });

  // loading of the images

  async function chunk(after) {
    const response = await fetch(`/batches/${batch}/cells.json?after=${after}`, { headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(response.status);
    return { after, ...await response.json() };
  }

  async function load() {
    let after = "";
    do {
      const got = await chunk(after);
      chunks.push(got);
      after = got.next;
      if (after === null || !(chunks.length & (chunks.length - 1))) arrange();  // only after 1, 2, 4, 8 ... chunks, because each call arranges all items
    } while (after !== null);
    grid.setAttribute("aria-busy", "false");
  }

  /* One item per image or expected image. A re-rolled image is replaced by its new version in the same place. */
  function arrange() {
    const rows = new Map(), replacing = new Set();
    for (const { jobs } of chunks) for (const job of jobs) {
      rows.set(job[0], job);
      for (const picture of job[4]) if (picture[3]) replacing.add(picture[3]);
    }
    items = [];
    chunks.forEach(({ jobs }, number) => {
      for (const job of jobs) {
        if (replacing.has(job[0])) continue;
        for (let index = 0; index < job[3]; index++) {
          let row = job, picture = job[4].find((one) => one[0] === index), place = index;
          for (let hops = 0; picture && picture[2] === "rerolled" && rows.has(picture[3]) && hops < 50; hops++) {
            row = rows.get(picture[3]); place = 0; picture = row[4].find((one) => one[0] === 0);
          }
          const image = picture ? picture[1] : "", kept = waiting.get(image) ?? (picture ? picture[2] : "");
          items.push({ key: `${row[0]}-${place}`, job: row[0], title: job[3] > 1 ? `${job[1]} · ${index + 1}` : job[1], state: row[2], image, pick: kept, chunk: number });
        }
      }
    });
    filter();
  }

  const matches = (item) => show === "all" || (item.image && item.pick === (show === "open" ? "" : show));

  function filter() {
    view = show === "all" ? items : items.filter(matches);
    at = Math.max(0, Math.min(at, view.length - 1));
    anchor = Math.max(0, Math.min(anchor, view.length - 1));
    const numbers = { all: 0, open: 0, approved: 0, rejected: 0 };
    for (const item of items) { numbers.all++; if (item.image) { const name = item.pick || "open"; if (name in numbers) numbers[name]++; } }
    for (const [name, number] of Object.entries(numbers)) {
      for (const element of document.querySelectorAll(`[data-number="${name}"]`)) element.textContent = number.toLocaleString(document.documentElement.lang);
    }
    const rest = bar.querySelector("[data-rest]");
    rest.hidden = numbers.open < 2;
    rest.textContent = fill(words.rest, { n: numbers.open.toLocaleString(document.documentElement.lang) });
    finals.hidden = !numbers.approved;
    document.getElementById("sheet-empty").hidden = view.length > 0 || grid.getAttribute("aria-busy") === "true";
    drawn.forEach((element) => { element.item = null; });
    layout();
  }

  // drawing

  function layout() {
    const width = grid.clientWidth;
    [side, thumb] = SIZES[size];
    columns = Math.max(2, Math.floor((width + GAP) / (side + GAP)));
    side = (width - GAP * (columns - 1)) / columns;
    if (side * devicePixelRatio <= 128) thumb = 128; else if (side * devicePixelRatio > 400) thumb = 512;
    rowHeight = Math.round(side + LABEL + GAP);
    grid.style.height = `${Math.max(0, Math.ceil(view.length / columns) * rowHeight - GAP)}px`;
    draw();
  }

  function range() {
    const top = Math.max(0, -grid.getBoundingClientRect().top), screen = innerHeight;
    const first = Math.max(0, Math.floor(top / rowHeight) - OVERSCAN), last = Math.ceil((top + screen) / rowHeight) + OVERSCAN;
    return [first * columns, Math.min(view.length, last * columns)];
  }

  function draw() {
    frame = 0;
    const [first, last] = range();
    for (const [index, element] of drawn) if (index < first || index >= last) { element.remove(); drawn.delete(index); }
    const low = Math.min(at, anchor), high = Math.max(at, anchor);
    for (let index = first; index < last; index++) {
      let element = drawn.get(index);
      if (!element) {
        element = document.createElement("div");
        element.setAttribute("role", "option");
        drawn.set(index, element);
        grid.append(element);
      }
      if (element.item !== view[index]) paint(element, view[index], index);
      element.style.transform = `translate(${Math.round(index % columns * (side + GAP))}px, ${Math.floor(index / columns) * rowHeight}px)`;
      element.style.width = `${side}px`;
      element.classList.toggle("on", index >= low && index <= high);
      element.classList.toggle("at", index === at);
      element.setAttribute("aria-selected", index >= low && index <= high);
    }
    const here = drawn.get(at);
    if (here) grid.setAttribute("aria-activedescendant", here.id); else grid.removeAttribute("aria-activedescendant");
    if (speed < FAST_PX_MS) fetchPictures();
    else { clearTimeout(settle); settle = setTimeout(() => { speed = 0; fetchPictures(); }, 90); }
  }

  function paint(element, item, index) {
    const same = element.item?.image === item.image && element.dataset.key === item.key && element.firstChild;
    element.id = `cell-${item.key}`;
    element.dataset.key = item.key;
    element.className = `cell${item.image ? "" : " waits"}${!item.image && OPEN.has(item.state) ? " pending" : ""}${item.pick ? ` p-${item.pick}` : ""}`;
    element.setAttribute("aria-posinset", index + 1);
    element.setAttribute("aria-setsize", view.length);
    element.setAttribute("aria-label", `${item.title}, ${words[item.image ? item.pick || "open" : item.state] ?? item.state}`);
    if (same && element.image === item.image) { element.item = item; return; }
    element.item = item;
    element.image = item.image;
    const square = document.createElement("span");
    square.className = `square s-${item.state}`;
    if (item.image) {
      const image = new Image();
      image.alt = "";
      image.decoding = "async";
      image.dataset.src = `/api/v1/images/${item.image}/file?thumb=${thumb}`;
      square.append(image);
    } else {
      const glyph = document.createElement("span");
      glyph.className = "glyph";
      glyph.textContent = GLYPHS[item.state] ?? "·";
      square.append(glyph);
    }
    const label = document.createElement("span");
    label.className = "line small";
    label.textContent = item.title;
    element.replaceChildren(square, label);
  }

  function fetchPictures() {
    for (const image of grid.querySelectorAll("img[data-src]")) { image.src = image.dataset.src; delete image.dataset.src; }
  }

  function plan() { if (!frame) frame = requestAnimationFrame(draw); }

  addEventListener("scroll", () => {
    const now = performance.now();
    speed = Math.abs(scrollY - lastY) / Math.max(1, now - lastT);
    lastY = scrollY; lastT = now;
    plan();
  }, { passive: true });
  new ResizeObserver(layout).observe(grid);

  // cursor and selection

  function go(index, extend) {
    at = Math.max(0, Math.min(index, view.length - 1));
    if (!extend) anchor = at;
    const top = grid.getBoundingClientRect().top + Math.floor(at / columns) * rowHeight;
    const above = bar.getBoundingClientRect().bottom + GAP, below = innerHeight - rowHeight - GAP;
    speed = 0;
    if (top < above) scrollBy(0, top - above); else if (top > below) scrollBy(0, top - below);
    if (large.open) enlarge();
    draw();
  }

  function enlarge() {
    const item = view[at];
    if (!item?.image) { if (large.open) large.close(); return; }
    large.querySelector("img").src = `/api/v1/images/${item.image}/file`;
    large.querySelector("strong").textContent = item.title;
    large.querySelector("span").textContent = words[item.pick || "open"];
    large.querySelector("a").href = `/jobs/${item.job}`;
    if (!large.open) large.showModal();
  }

  // decisions

  function decide(action, chosen) {
    const picked = (chosen ?? view.slice(Math.min(at, anchor), Math.max(at, anchor) + 1)).filter((item) => item.image && item.pick !== RESULT[action]);
    if (!picked.length) return;
    done.push({ action, before: picked.map((item) => [item, item.pick]) });
    for (const item of picked) { item.pick = RESULT[action]; waiting.set(item.image, item.pick); queue.set(item.image, action); }
    say(fill(words[`did${action[0].toUpperCase()}${action.slice(1)}`], { n: picked.length.toLocaleString(document.documentElement.lang) }));
    const single = !chosen && at === anchor, stays = picked.every(matches);
    filter();
    if (single && stays) go(at + 1); else if (!chosen) { at = anchor = Math.min(at, anchor); go(at); }
    if (large.open) enlarge();
    soon();
  }

  function undo() {
    const last = done.pop();
    if (!last || last.action === "reroll") { say(words.nothing); return; }
    const back = { approved: "approve", rejected: "reject", "": "clear" };
    for (const [item, pick] of last.before) if (pick in back) { item.pick = pick; waiting.set(item.image, pick); queue.set(item.image, back[pick]); }
    const [first] = last.before[0], index = view.findIndex((item) => item.image === first.image);
    say(words.undone);
    filter();
    if (index >= 0) go(index);
    soon();
  }

  const queue = new Map();
  let underway = null;  // the request in progress
  function soon() { clearTimeout(sending); sending = setTimeout(sendNow, SEND_MS); }

  function sendNow() {
    clearTimeout(sending);
    const mine = Promise.resolve(underway).then(send).finally(() => { if (underway === mine) underway = null; });
    return underway = mine;
  }

  // decisions are sent before finals are made, and before the page is left
  finals.addEventListener("submit", (event) => {
    if (!queue.size && !underway) return;
    event.preventDefault();
    sendNow().finally(() => finals.submit());
  });
  addEventListener("pagehide", () => { clearTimeout(sending); send(); });

  async function send() {
    if (!queue.size) return;
    const now = [...queue].slice(0, 1000);
    for (const [image] of now) queue.delete(image);
    try {
      const response = await fetch(`/api/v1/batches/${batch}/picks`, {
        method: "POST", headers: { "Content-Type": "application/json", Accept: "application/json", ...headers() },
        body: JSON.stringify({ picks: now.map(([image_id, pick]) => ({ image_id, pick })) }),
        keepalive: now.length <= 500,  // browsers limit the size of requests that outlive their page
      });
      if (!response.ok) {
        const problem = await response.json().catch(() => ({}));
        say(problem.errors?.[0] ? `${problem.errors[0].detail} – ${problem.errors[0].remedy ?? ""}` : problem.detail ?? words.refused, true);
        for (const [image] of now) waiting.delete(image);
        await reload(chunks.map((_, number) => number));
        return;
      }
      for (const [image, pick] of now) for (const { jobs } of chunks) for (const job of jobs) for (const picture of job[4]) if (picture[1] === image) picture[2] = RESULT[pick];
      for (const [image] of now) if (!queue.has(image)) waiting.delete(image);
      if (now.some(([, pick]) => pick === "reroll")) await reload([...touched(now.map(([image]) => image)), chunks.length - 1]);
    } catch {
      for (const [image, pick] of now) if (!queue.has(image)) queue.set(image, pick);
      say(words.away, true);
      setTimeout(sendNow, 3000);
      return;
    }
    if (queue.size) soon();
  }

  const headers = () => { const token = document.querySelector("meta[name=csrf-token]")?.content; return token ? { "X-CSRF-Token": token } : {}; };

  function touched(images) {
    const wanted = new Set(images), found = new Set();
    chunks.forEach(({ jobs }, number) => { if (jobs.some((job) => job[4].some((picture) => wanted.has(picture[1])))) found.add(number); });
    return found;
  }

  function say(text, bad) { said.textContent = text; said.classList.toggle("bad", Boolean(bad)); }

  // changes made elsewhere

  async function reload(numbers) {
    const wanted = [...new Set(numbers)].filter((number) => number >= 0 && number < chunks.length);
    const got = await Promise.all(wanted.map((number) => chunk(chunks[number].after)));
    const grown = got.find((one) => one.after === chunks.at(-1).after && one.next !== null);
    wanted.forEach((number, n) => { chunks[number] = got[n]; });
    if (grown) { let after = grown.next; while (after !== null) { const more = await chunk(after); chunks.push(more); after = more.next; } }
    arrange();
  }

  function look() {
    if (document.hidden || grid.getAttribute("aria-busy") === "true") return;
    const wait = lookAt + LOOK_MS - performance.now();
    clearTimeout(looking);
    if (wait > 0) { looking = setTimeout(look, wait); return; }
    const [first, last] = range(), numbers = new Set();
    for (const item of view.slice(first, last)) if (OPEN.has(item.state) && !item.image) numbers.add(item.chunk);
    if (items.some((item) => item.state !== "succeeded" && OPEN.has(item.state))) numbers.add(chunks.length - 1);
    if (!numbers.size) return;
    lookAt = performance.now();
    reload(numbers).catch(() => {});
  }
  document.addEventListener("farm:event", (event) => { if (event.detail.kind !== "job.progress") look(); });
  setInterval(look, 4000);

  // keys, buttons, touch

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { key: name, shiftKey: extend } = event, page = Math.max(1, Math.floor(innerHeight / rowHeight) - 1) * columns;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns, PageDown: at + page, PageUp: at - page, Home: 0, End: view.length - 1 }[name];
    const action = KEYS[name] ?? KEYS[name.toLowerCase()];
    if (to !== undefined) { if (to >= 0 || at > 0) go(to, extend); }
    else if (action) decide(action);
    else if (name === " ") { if (large.open) large.close(); else enlarge(); }
    else if (name.toLowerCase() === "z") undo();
    else return;
    event.preventDefault();
  }
  grid.addEventListener("keydown", key);
  large.addEventListener("keydown", (event) => { if (event.key !== "Enter" && !(event.key === " " && event.target.tagName === "BUTTON")) key(event); });
  large.addEventListener("click", (event) => { if (event.target === large || event.target.tagName === "IMG") large.close(); });
  large.addEventListener("close", () => grid.focus({ preventScroll: true }));
  grid.addEventListener("click", (event) => {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    const index = [...drawn].find(([, element]) => element === cell)[0], again = index === at && at === anchor && document.activeElement === grid && matchMedia("(hover: none)").matches;
    grid.focus({ preventScroll: true });
    at = index;
    if (!event.shiftKey) anchor = at;
    draw();
    if (again) enlarge();
  });
  grid.addEventListener("dblclick", enlarge);
  for (const root of [bar, large]) root.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { act, show: wanted, size: chosen } = button.dataset;
    if (act === "undo") undo(); else if (act === "large") enlarge(); else if (act === "close") large.close(); else if (act) decide(act);
    if ("rest" in button.dataset) decide("approve", items.filter((item) => item.image && !item.pick));
    if (wanted) { show = wanted; press(button, "show"); at = anchor = 0; filter(); }
    if (chosen) { size = chosen; press(button, "size"); drawn.forEach((element) => element.remove()); drawn.clear(); layout(); go(at); }
  });
  function press(button, name) { for (const other of bar.querySelectorAll(`[data-${name}]`)) { other.setAttribute("aria-pressed", other === button); other.classList.toggle("on", other === button); } }

  document.getElementById("sheet-live").hidden = false;
  load().catch(() => { grid.setAttribute("aria-busy", "false"); say(words.away, true); });
})();
