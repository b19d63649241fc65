/* Buttons that copy the code under their heading, and a field whose key is inserted into the code. */
(() => {
  "use strict";
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const code = button.closest("h2, h3").nextElementSibling;
    try {
      await navigator.clipboard.writeText(code.textContent);
      const before = button.textContent;
      button.textContent = document.getElementById("words").dataset.copied;
      setTimeout(() => { button.textContent = before; }, 1500);
    } catch { getSelection().selectAllChildren(code); }
  });

  const field = document.getElementById("own-key");
  if (field) {
    const texts = [...document.querySelectorAll(".first-steps code")].map((code) => [code, code.textContent]);
    field.addEventListener("input", () => {
      // a key has no characters that are special in a shell or Python; other text is never inserted into a command
      const key = /^[\w.-]+$/.test(field.value.trim()) ? field.value.trim() : field.dataset.standsFor;
      for (const [code, text] of texts) code.textContent = text.replaceAll(field.dataset.standsFor, key);
    });
  }
  for (const element of document.querySelectorAll(".needs-js")) element.hidden = false;
})();
