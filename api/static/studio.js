/* Optional helpers of the studio's form: suggestions while typing, saved negative prompts, seed buttons, dropped or pasted images,
   a large view. The form works without this script. */
(() => {
  "use strict";
  const TYPED_MS = 350, MAX_SAVED_NEGATIVES = 12, KEPT = "imagefarm.saved-negatives";
  const form = document.getElementById("studio-form"), look = document.getElementById("look");
  const $ = (id) => document.getElementById(id);

  function show() {
    for (const element of document.querySelectorAll(".needs-js[hidden]")) element.hidden = false;
    for (const element of document.querySelectorAll(".no-js:not([hidden])")) element.hidden = true;
    showSavedNegatives();
  }

  // the enhancer's suggestions: requested while the reader types, applied only by a button
  let timer = 0;
  const suggest = () => { const place = $("suggestion"); if (place) htmx.trigger(place, "suggest"); };
  function put(field, start, end, text) {
    field.focus();
    field.setSelectionRange(start, end);
    // keeps the browser's own undo; a browser without the command gets the text set directly
    if (!document.execCommand("insertText", false, text)) { field.setRangeText(text, start, end, "end"); field.dispatchEvent(new Event("input", { bubbles: true })); }
  }
  function add(phrases) {
    const prompt = $("prompt"), end = prompt.value.trimEnd().replace(/[,.;，。；、\s]+$/u, "").length;
    const comma = /[\u3400-\u9fff\uf900-\ufaff]/.test(prompt.value) ? "，" : ", ";
    put(prompt, end, prompt.value.length, phrases.map((phrase) => comma + phrase).join(""));
  }
  const offered = () => [...document.querySelectorAll("#suggestion [data-add]")];

  // saved negative prompts: kept by this browser alone
  function readSavedNegatives() { try { const found = JSON.parse(localStorage.getItem(KEPT)); return Array.isArray(found) ? found.filter((one) => typeof one === "string") : []; } catch { return []; } }
  function writeSavedNegatives(list) { try { localStorage.setItem(KEPT, JSON.stringify(list.slice(0, MAX_SAVED_NEGATIVES))); } catch { /* storage is disabled or full */ } showSavedNegatives(); }
  function showSavedNegatives() {
    const place = $("saved-negatives");
    if (!place) return;
    for (const old of place.querySelectorAll(".saved-negative")) old.remove();
    const piece = (text, name, mine) => {
      const whole = document.createElement("span"), use = document.createElement("button");
      whole.className = "saved-negative";
      use.type = "button"; use.textContent = name; use.title = text; use.dataset.use = text;
      whole.append(use);
      if (mine) { const drop = document.createElement("button"); drop.type = "button"; drop.textContent = "×"; drop.dataset.forget = text; drop.setAttribute("aria-label", `${place.dataset.forget}: ${text}`); whole.append(drop); }
      return whole;
    };
    const kind = document.querySelector("[name=kind]:checked")?.dataset.negative || place.dataset.usual;
    place.prepend(piece(kind, place.dataset.usualName, false), ...readSavedNegatives().map((text) => piece(text, text.length > 28 ? `${text.slice(0, 27)}…` : text, true)));
  }

  form.addEventListener("click", (event) => {
    const pressed = event.target.closest("button");
    if (!pressed) return;
    const { add: phrase, addAll, vary, use, forget } = pressed.dataset;
    if (phrase !== undefined) { event.preventDefault(); add([phrase]); }
    else if (addAll !== undefined) { event.preventDefault(); add(offered().map((one) => one.dataset.add)); }
    else if (vary !== undefined) { const number = $("suggest-with"); number.value = String((Number(number.value) + 1) % 100); suggest(); }
    else if (use !== undefined) {
      const field = $("negative_prompt"), has = new Set(field.value.split(/\s*[,，]\s*/u).filter(Boolean));
      for (const word of use.split(/\s*[,，]\s*/u)) if (word) has.add(word);
      put(field, 0, field.value.length, [...has].join(", "));
    }
    else if (forget !== undefined) writeSavedNegatives(readSavedNegatives().filter((one) => one !== forget));
    else if (pressed.id === "save-negative") { const text = $("negative_prompt").value.trim(); if (text) writeSavedNegatives([text, ...readSavedNegatives().filter((one) => one !== text)]); }
    else if (pressed.id === "dice") { $("seed").value = String(crypto.getRandomValues(new Uint32Array(1))[0]); $("keep").checked = true; }
  });
  form.addEventListener("input", (event) => {
    if (event.target.id === "prompt") { clearTimeout(timer); timer = setTimeout(suggest, TYPED_MS); }
    if (event.target.name !== "kind") return;
    const { steps, guidance } = event.target.dataset;
    for (const [id, usual] of [["steps", steps], ["guidance", guidance]]) { $(id).value = ""; $(id).placeholder = usual; }
    showSavedNegatives();
    suggest();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    if (event.ctrlKey || event.metaKey) { event.preventDefault(); form.requestSubmit($("go")); }
    else if (event.altKey && offered().length) { event.preventDefault(); add(offered().map((one) => one.dataset.add)); }
  });

  // the image to start from: dropped anywhere on the form, or pasted
  function begin(files) {
    const input = document.querySelector("#init-image input[type=file]");
    const picture = [...files].find((file) => file.type.startsWith("image/"));
    if (!input || !picture) return false;
    const given = new DataTransfer();
    given.items.add(picture);
    input.files = given.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    return true;
  }
  for (const kind of ["dragover", "dragleave", "drop"]) {
    form.addEventListener(kind, (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      $("init-image")?.classList.toggle("over", kind === "dragover");
      if (kind === "drop") begin(event.dataTransfer.files);
    });
  }
  form.addEventListener("paste", (event) => { if (begin(event.clipboardData.files)) event.preventDefault(); });

  document.addEventListener("htmx:before:request", (event) => { if (event.target === form) { $("go").disabled = true; $("go").setAttribute("aria-busy", "true"); } });
  document.addEventListener("htmx:finally:request", (event) => {
    if (event.target !== form) return;
    $("go").disabled = false;
    $("go").removeAttribute("aria-busy");
    if (document.querySelector("#said .error")) return;
    if (!$("keep").checked) $("seed").value = "";
    if (matchMedia("(max-width: 52rem)").matches) $("live").scrollIntoView({ behavior: "smooth" });
  });
  document.addEventListener("htmx:after:swap", () => { show(); join(); });

  // older images were loaded below: extend the live part above, so it reaches down to them
  function join() {
    const older = $("older"), live = $("live"), under = older.querySelector("[data-under]")?.dataset.under;
    for (const nav of [...older.querySelectorAll("nav")].filter((one) => one !== older.lastElementChild)) nav.remove();
    if (!under) return;
    const at = new URL(live.getAttribute("hx-get"), location.href);
    if (at.searchParams.get("down_to") === under) return;
    at.searchParams.set("down_to", under);
    live.setAttribute("hx-get", at.pathname + at.search);
    document.dispatchEvent(new Event("farm:moved"));
  }

  // the large view of one image with its details; the arrow keys change the image
  let seen = "";
  const shots = () => [...document.querySelectorAll("#gallery .shot")];
  function open(shot) {
    seen = shot.id;
    const picture = new Image(), facts = shot.querySelector(".card-of").cloneNode(true), small = shot.querySelector("img");
    picture.src = shot.querySelector(".see").href;
    picture.alt = small.alt;
    const said = document.createElement("p");
    said.className = "prompt";
    said.textContent = small.alt;
    look.querySelector(".seen").replaceChildren(picture);
    look.querySelector(".side").replaceChildren(said, facts);
    htmx.process(facts);
    if (!look.open) look.showModal();
  }
  function turn(by) {
    const all = shots(), at = all.findIndex((shot) => shot.id === seen);
    if (all.length) open(all[(at + by + all.length) % all.length]);
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest("#gallery .see");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    open(link.closest(".shot"));
  });
  look.addEventListener("click", (event) => {
    const pressed = event.target.closest("button");
    if (event.target === look || pressed?.dataset.close !== undefined) look.close();
    else if (pressed?.dataset.turn) turn(Number(pressed.dataset.turn));
  });
  look.addEventListener("submit", () => look.close());
  look.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") { event.preventDefault(); turn(event.key === "ArrowLeft" ? -1 : 1); }
  });

  show();
})();
