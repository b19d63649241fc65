/* The form for a new batch: reads the beginning of the chosen table and gets a preview of its columns and first prompts from the farm. */
(() => {
  "use strict";
  const HEAD_BYTES = 64 * 1024, TYPED_MS = 250;
  const $ = (id) => document.getElementById(id), form = $("preview-form"), file = $("b-file"), table = $("b-table"), template = $("b-template");
  let head = "", kind = "csv", timer = 0;

  async function read() {
    const chosen = file.files[0];
    if (!chosen) { head = ""; kind = "csv"; return; }
    // the bytes as they are: what they mean is for the farm to say, which reads the whole table later
    const bytes = new Uint8Array(await chosen.slice(0, HEAD_BYTES).arrayBuffer());
    head = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
    kind = /\.(jsonl|ndjson|json)$/i.test(chosen.name) ? "json" : "csv";
  }

  function show() {
    form.elements.head.value = head || table.value;
    form.elements.coding.value = head ? "base64" : "";
    form.elements.kind.value = head ? kind : "csv";
    for (const name of ["template", "variants", "charset", "update_of"]) {
      form.elements[name].value = $("batch-form").elements[name]?.value ?? "";
    }
    htmx.trigger($("preview"), "preview");
  }
  function soon() { clearTimeout(timer); timer = setTimeout(show, TYPED_MS); }

  file.addEventListener("change", async () => { await read(); show(); });
  for (const field of [table, template, $("batch-form").elements.variants]) field.addEventListener("input", soon);
  $("batch-form").addEventListener("change", ({ target: { name } }) => { if (name === "charset" || name?.startsWith("map.")) show(); });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-column]");
    if (!button) return;
    event.preventDefault();
    const { selectionStart: start, selectionEnd: end } = template, word = `{{ ${button.dataset.column} }}`;
    template.focus();
    template.setRangeText(word, start, end, "end");
    soon();
  });
  if (file.files[0]) read().then(show);
})();
