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

  document.addEventListener("farm:event", ({ detail }) => {
    if (detail.kind !== "job.progress") return;
    const { subject, previews } = JSON.parse(detail.data);
    for (const { index, step } of previews ?? []) {
      if (!document.querySelector(`[data-preview="${CSS.escape(subject)}"][data-index="${Number(index)}"]`)) continue;
      const next = new Image();
      next.alt = "";
      next.addEventListener("load", () => {
        const name = `${subject}/${index}`;
        seen.get(name)?.remove();
        seen.set(name, next);
        place();
      });
      next.src = `/jobs/${encodeURIComponent(subject)}/preview.webp?index=${Number(index)}&step=${Number(step)}`;
    }
  });
  document.addEventListener("htmx:after:swap", place);
})();
