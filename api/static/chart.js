/* Draws [data-series] with uPlot, again after each morph of the page, in the colours of the page and of its scheme. */
(() => {
  "use strict";
  const drawn = new WeakMap(), HEIGHT = 150;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  const short = (value) => value >= 1e6 ? `${+(value / 1e6).toFixed(1)}M` : value >= 1e4 ? `${+(value / 1e3).toFixed(0)}k` : `${+value.toPrecision(3)}`;

  function options(chart, data, width) {
    const { names, tones, kind, unit } = chart.dataset;
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const span = data[0].at(-1) - data[0][0];
    const shown = span > 2 * 86400 ? { month: "numeric", day: "numeric" } : { hour: "2-digit", minute: "2-digit", hour12: false };
    const when = (at) => new Date(at * 1000).toLocaleString(document.documentElement.lang, span > 2 * 86400 ? { ...shown, hour: "2-digit", hour12: false } : shown);
    const paths = kind === "bars" ? uPlot.paths.bars({ size: [0.8, 24] }) : undefined;
    const series = names.split("|").map((label, number) => {
      const stroke = colour(`--${tones.split(" ")[number]}`);
      return { label, stroke, width: kind === "bars" ? 0 : 2, fill: kind === "bars" ? stroke : undefined, paths, spanGaps: false,
        points: { show: kind !== "bars", size: 4, fill: stroke }, value: (_, value) => value == null ? "–" : `${short(value)}${unit ? ` ${unit}` : ""}` };
    });
    return {
      width, height: HEIGHT, legend: { show: true, live: true }, cursor: { y: false, points: { show: kind !== "bars" } },
      scales: { y: { range: (_, low, high) => [0, high == null ? 1 : Math.max(kind === "bars" ? 4 : 0.1, high * 1.05)] } },
      series: [{ value: (_, at) => at == null ? "–" : when(at) }, ...series],
      axes: [{ ...axis, values: (_, ticks) => ticks.map((at) => new Date(at * 1000).toLocaleString(document.documentElement.lang, shown)) },
        { ...axis, size: 44, values: (_, ticks) => ticks.map((value) => `${short(value)}${unit ? ` ${unit}` : ""}`) }],
    };
  }

  function draw() {
    for (const chart of document.querySelectorAll(".chart[data-series]")) {
      const plot = chart.querySelector(".plot"), data = JSON.parse(chart.dataset.series), width = plot.clientWidth;
      const known = drawn.get(plot);
      if (known && known.dark === scheme.matches && known.length === data[0].at(-1) - data[0][0]) {
        known.chart.setData(data);
        if (known.chart.width !== width) known.chart.setSize({ width, height: HEIGHT });
        continue;
      }
      known?.chart.destroy();
      drawn.set(plot, { chart: new uPlot(options(chart, data, width), data, plot), dark: scheme.matches, length: data[0].at(-1) - data[0][0] });
    }
  }
  document.addEventListener("htmx:after:swap", draw);
  scheme.addEventListener("change", draw);
  addEventListener("resize", draw);
  draw();
})();
