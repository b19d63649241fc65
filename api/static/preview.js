/* Pictures in the making: progress says that there is a new look at an image, this fetches it into the image's place. */
(() => {
  "use strict";
  const seen = new Map();  // by job and index, the picture itself: a page that is morphed gets it back without asking again

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
    next.src = `/jobs/${encodeURIComponent(job)}/preview.webp?index=${index}&step=${step}`;  // empty if there is none: no error
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
