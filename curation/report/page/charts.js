// Histograms, curves and bars as SVG; colours come from the style sheet.
"use strict";

const charts = (() => {
  const { make, svg, number, count } = dom;
  const WIDE = 320, HIGH = 96;

  function line(x0, y0, x1, y1, kind) {
    return svg("line", { x1: x0, y1: y0, x2: x1, y2: y1, class: kind });
  }

  // Passed and not passed on one another; the threshold as a line over both.
  function histogram(score) {
    const { edges, passed, failed, threshold, line: at } = score;
    const scale = score.log ? Math.log : (value) => value;
    const low = scale(edges[0]), high = scale(edges[edges.length - 1]);
    const x = (value) => (WIDE * (scale(value) - low)) / (high - low || 1);
    const sums = passed.map((value, i) => value + failed[i]);
    const most = Math.max(...sums, 1);
    // The square root keeps few beside many visible; the numbers stand in the title of each bar.
    const y = (value) => HIGH * Math.sqrt(value / most);
    const bars = sums.map((sum, i) => {
      if (!sum) return null;
      const left = x(edges[i]), width = Math.max(x(edges[i + 1]) - left - 0.6, 0.8);
      const tall = y(sum), good = Math.min((tall * passed[i]) / sum, tall);
      return svg("g", {},
        svg("title", {}, `${number(edges[i])} to ${number(edges[i + 1])}: ${count(passed[i])} passed, ${count(failed[i])} did not`),
        svg("rect", { x: left, width, y: HIGH - good, height: good, class: "good" }),
        svg("rect", { x: left, width, y: HIGH - tall, height: tall - good, class: "bad" }));
    });
    const marks = at === null ? null : line(x(at), -4, x(at), HIGH, "threshold");
    return make("figure", { class: "chart" },
      svg("svg", { viewBox: `-2 -6 ${WIDE + 4} ${HIGH + 8}`, role: "img", preserveAspectRatio: "none",
        "aria-label": `histogram of ${score.says}, threshold ${number(threshold)}` },
        line(0, HIGH, WIDE, HIGH, "axis"), bars, marks),
      make("figcaption", { class: "ends" }, make("span", {}, number(edges[0])),
        make("span", { class: "mark" }, threshold === null ? "" : `threshold ${number(threshold)}`),
        make("span", {}, number(edges[edges.length - 1]))));
  }

  // What is kept over a threshold's values, and precision and recall where they are known.
  function sweep(found) {
    const points = found.points;
    const low = points[0].value, high = points[points.length - 1].value;
    const x = (value) => (WIDE * (value - low)) / (high - low || 1);
    const most = Math.max(...points.map((point) => point.kept), 1);
    const path = (value, kind) => {
      const there = points.filter((point) => value(point) !== null);
      if (!there.length) return null;
      const steps = there.map((point) => `${x(point.value).toFixed(1)},${(HIGH * (1 - value(point))).toFixed(1)}`);
      return svg("polyline", { points: steps.join(" "), class: kind });
    };
    return make("figure", { class: "chart" },
      svg("svg", { viewBox: `-2 -6 ${WIDE + 4} ${HIGH + 8}`, role: "img", preserveAspectRatio: "none",
        "aria-label": `${found.says}, over ${found.key}` },
        line(0, HIGH, WIDE, HIGH, "axis"), line(0, 0, WIDE, 0, "axis faint"),
        path((point) => point.kept / most, "kept"),
        path((point) => point.precision, "precision"), path((point) => point.recall, "recall"),
        line(x(found.current), -4, x(found.current), HIGH, "threshold")),
      make("figcaption", { class: "ends" }, make("span", {}, number(low)),
        make("span", { class: "mark" }, `the run: ${number(found.current)}`), make("span", {}, number(high))));
  }

  // Bars with a mark where the paper is, in per cent.
  function bars(entry) {
    const of = entry.count || 1;
    const shares = entry.bars.map(([, found]) => (100 * found) / of);
    const most = Math.max(...shares, ...entry.bars.map(([, , paper]) => paper || 0), 1);
    const rows = entry.bars.map(([label, found, paper], i) => make("div", { class: "bar-row" },
      make("span", { class: "label" }, label),
      make("span", { class: "track" },
        width(make("span", { class: "fill" }), (100 * shares[i]) / most),
        paper ? left(make("span", { class: "paper", title: `paper: ${paper} %` }), (100 * paper) / most) : null),
      make("span", { class: "n" }, `${shares[i].toFixed(shares[i] < 10 ? 1 : 0)} %`),
      make("span", { class: "n soft" }, paper === null ? count(found) : `${paper} %`)));
    return make("div", { class: "bars" }, rows);
  }

  function width(element, percent) {
    element.style.width = `${percent}%`;
    return element;
  }

  function left(element, percent) {
    element.style.left = `${percent}%`;
    return element;
  }

  return { histogram, sweep, bars, width };
})();
