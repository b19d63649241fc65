/* Looks up a dropped or chosen image at once. */
(() => {
  "use strict";
  const area = document.querySelector(".drop"), input = area.querySelector("input");
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => { event.preventDefault(); area.classList.toggle("over", kind === "dragover"); });
  }
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer.files.length) return;
    input.files = event.dataTransfer.files;
    input.form.requestSubmit();
  });
  input.addEventListener("change", () => { if (input.files.length) input.form.requestSubmit(); });
})();
