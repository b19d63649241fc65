/* The studio's small comforts: dice, lock, Ctrl+Enter, copying. The form works without any of them. */
(() => {
  "use strict";
  const form = document.getElementById("studio-form");
  const $ = (id) => document.getElementById(id);
  const show = () => { for (const element of document.querySelectorAll(".needs-js")) element.hidden = false; for (const element of document.querySelectorAll(".no-js")) element.hidden = true; };

  form.addEventListener("click", (event) => {
    if (event.target.closest("#dice")) { $("seed").value = String(crypto.getRandomValues(new Uint32Array(1))[0]); $("keep").checked = true; }
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit($("go")); }
  });
  document.addEventListener("htmx:before:request", (event) => { if (event.target === form) { $("go").disabled = true; $("go").setAttribute("aria-busy", "true"); } });
  document.addEventListener("htmx:finally:request", (event) => {
    if (event.target !== form) return;
    $("go").disabled = false;
    $("go").removeAttribute("aria-busy");
    if (!$("keep").checked && !document.querySelector("#said .error")) $("seed").value = "";
  });
  document.addEventListener("htmx:after:swap", show);
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const code = button.closest("h3").nextElementSibling;
    try {
      await navigator.clipboard.writeText(code.textContent);
      const before = button.textContent;
      button.textContent = $("words").dataset.copied;
      setTimeout(() => { button.textContent = before; }, 1500);
    } catch { getSelection().selectAllChildren(code); }
  });
  show();
})();
