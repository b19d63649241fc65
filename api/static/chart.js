/* Draws [data-series] with uPlot, anew when the page was morphed, in the colours of the page. */
(() => {
  "use strict";
  const drawn = new WeakMap();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  function draw() {
    for (const chart of document.querySelectorAll(".chart[data-series]")) {
      const plot = chart.querySelector(".plot"), data = JSON.parse(chart.dataset.series), width = plot.clientWidth;
      const known = drawn.get(plot);
      if (known) { known.setData(data); if (known.width !== width) known.setSize({ width, height: 190 }); continue; }
      const [made, failed] = chart.dataset.names.split("|");
      const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
      const bars = uPlot.paths.bars({ size: [0.8, 24] });
      const span = data[0].at(-1) - data[0][0];
      const shown = span > 2 * 86400 ? { month: "numeric", day: "numeric" } : { hour: "2-digit", minute: "2-digit", hour12: false };
      const times = (_, ticks) => ticks.map((at) => new Date(at * 1000).toLocaleString(document.documentElement.lang, shown));
      const series = (label, stroke) => ({ label, stroke, fill: stroke, width: 0, paths: bars, points: { show: false } });
      drawn.set(plot, new uPlot({
        width, height: 190, legend: { show: false }, cursor: { y: false }, scales: { y: { range: (_, low, high) => [0, Math.max(4, high)] } },
        series: [{}, series(made, colour("--accent")), series(failed, "#d92d20")], axes: [{ ...axis, values: times }, { ...axis, size: 40 }],
      }, data, plot));
    }
  }
  document.addEventListener("htmx:after:swap", draw);
  addEventListener("resize", draw);
  draw();
})();
