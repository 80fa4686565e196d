// Live updates and charts of the console. Pages work without it.
(() => {
  "use strict";
  const drawn = new Map();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const lines = ["--line-1", "--line-2", "--line-3", "--line-4", "--line-5", "--line-6"];
  const short = (value) => {
    const size = Math.abs(value);
    if (size >= 1e9) return (value / 1e9).toFixed(1) + "G";
    if (size >= 1e6) return (value / 1e6).toFixed(1) + "M";
    if (size >= 1e4) return (value / 1e3).toFixed(0) + "k";
    return Number(value.toFixed(2)).toLocaleString("en");
  };

  function place(data, labels) {
    if (data.axis === "days") return (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) && labels[tick] ? labels[tick].slice(5) : ""));
    if (data.axis === "seconds") return (_, ticks) => ticks.map((tick) => (tick ? (tick % 60 ? tick + " s" : tick / 60 + " min") : "now"));
    return (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? tick.toLocaleString("en") : ""));
  }

  function options(data, width) {
    const muted = colour("--muted"), grid = colour("--border");
    const named = data.series.length > 0 && data.axis !== "seconds" ? ["--good", "--bad"] : lines;
    const font = "12px system-ui, sans-serif";
    const axis = { stroke: muted, font, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 } };
    return {
      width, height: 220, cursor: { y: false, points: { size: 6 } }, legend: { live: true },
      scales: {
        x: { time: false, range: (plot) => ends(plot.data[0], data.bars) },
        y: { range: (_, low, high) => [low < 0 ? low * 1.15 : 0, high > 0 ? high * 1.1 : 1] },
      },
      axes: [
        { ...axis, space: 64, values: place(data, data.labels), grid: { show: false }, incrs: data.axis === "seconds" ? [1, 5, 10, 30, 60, 120, 300, 600] : [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 1e4] },
        { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => short(Math.abs(tick))) },
      ],
      series: [
        { label: { blocks: "block", days: "day", seconds: "seconds" }[data.axis], value: (_, value) => (value == null ? "–" : data.axis === "days" ? data.labels[value] || "–" : Math.round(value).toLocaleString("en")) },
        ...data.series.map((label, index) => ({
          label, stroke: colour(named[index % named.length]), width: 2, points: { show: !data.bars && data.columns[0].length < 2 },
          value: (_, value) => (value == null ? "–" : short(Math.abs(value)) + (data.unit === "upokt" ? " upokt" : " " + data.unit)),
          ...(data.bars ? { fill: colour(named[index % named.length]), width: 0, paths: uPlot.paths.bars({ size: [0.7, 48] }), points: { show: false } } : {}),
        })),
      ],
    };
  }

  // The ends of the axis: bars need half of their distance on both sides.
  function ends(places, bars) {
    let least = places.length === 1 ? 8 : Infinity;
    for (let i = 1; i < places.length; i++) least = Math.min(least, places[i] - places[i - 1]);
    const margin = bars ? 0.6 * least : 0;
    return [places[0] - margin, places[places.length - 1] + margin];
  }

  function draw(element) {
    const text = element.dataset.chart, theme = matchMedia("(prefers-color-scheme: dark)").matches;
    const width = Math.max(240, element.clientWidth), before = drawn.get(element);
    if (before && before.text === text && before.width === width && before.theme === theme) return;
    const data = JSON.parse(text);
    // What was lost lies below the axis, what was earned above it.
    data.columns = data.columns.map((column, index) => (index && data.series[index - 1] === "lost" ? column.map((value) => -value) : column));
    if (before && before.theme === theme && before.plot.series.length === data.columns.length) {
      before.plot.setSize({ width, height: 220 });
      before.plot.setData(data.columns);
      newest(before.plot, data);
      Object.assign(before, { text, width });
      return;
    }
    if (before) before.plot.destroy();
    element.textContent = "";
    const plot = new uPlot(options(data, width), data.columns, element);
    newest(plot, data);
    drawn.set(element, { plot, text, width, theme });
  }

  function newest(plot, data) {
    requestAnimationFrame(() => { if (plot.cursor.idx == null) plot.setLegend({ idx: data.columns[0].length - 1 }); });
  }

  function drawAll() {
    for (const [element, row] of drawn) {
      if (!element.isConnected) { row.plot.destroy(); drawn.delete(element); }
    }
    document.querySelectorAll("[data-chart]").forEach(draw);
  }

  function connect() {
    const shown = document.getElementById("connection");
    const show = (state, text) => { shown.dataset.state = state; shown.textContent = text; };
    const events = new EventSource("/events");
    events.onopen = () => show("on", "live");
    events.onerror = () => show("off", "reconnecting");
    events.addEventListener("snapshot", () => { if (!document.hidden) htmx.trigger(document.body, "snapshot"); });
    addEventListener("pagehide", () => events.close());
    document.addEventListener("visibilitychange", () => { if (!document.hidden) htmx.trigger(document.body, "snapshot"); });
  }

  document.addEventListener("DOMContentLoaded", () => { drawAll(); connect(); });
  document.addEventListener("htmx:after:swap", drawAll);
  document.addEventListener("htmx:after:settle", drawAll);
  addEventListener("resize", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
