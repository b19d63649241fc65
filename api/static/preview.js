/* Previews of images that are being rendered: a progress event announces a new preview, and this script loads it into its place. */
(() => {
  "use strict";
  const seen = new Map();  // image elements by job and index: a morphed page gets them back without a new request

  function place() {
    for (const spot of document.querySelectorAll("[data-preview]")) {
      const picture = seen.get(`${spot.dataset.preview}/${spot.dataset.index}`);
      if (picture && picture.parentElement !== spot) spot.append(picture);
    }
  }

  function look(job, index, step) {
    const next = new Image();
    next.alt = "";
    next.addEventListener("load", () => {
      seen.get(`${job}/${index}`)?.remove();
      seen.set(`${job}/${index}`, next);
      place();
    });
    next.src = `/jobs/${encodeURIComponent(job)}/preview.webp?index=${index}&step=${step}`;  // 204 if there is none
  }

  function lookAround() {
    for (const { dataset } of document.querySelectorAll(".ghost.s-running[data-preview]")) {
      const name = `${dataset.preview}/${dataset.index}`;
      if (seen.has(name)) continue;
      seen.set(name, null);
      look(dataset.preview, dataset.index, 0);
    }
  }

  document.addEventListener("farm:event", ({ detail }) => {
    if (detail.kind !== "job.progress") return;
    const { subject, previews } = JSON.parse(detail.data);
    for (const { index, step } of previews ?? []) {
      if (!document.querySelector(`[data-preview="${CSS.escape(subject)}"][data-index="${Number(index)}"]`)) continue;
      look(subject, Number(index), Number(step));
    }
  });
  document.addEventListener("htmx:after:swap", () => { place(); lookAround(); });
  lookAround();
})();
