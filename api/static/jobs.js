/* The list of jobs: a changed choice filters at once. */
(() => {
  "use strict";
  document.querySelector("form.filters").addEventListener("change", (event) => { if (event.target.dataset.submits !== undefined) event.target.form.requestSubmit(); });
})();
