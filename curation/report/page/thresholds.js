// Every number that was compared with a threshold: its histogram, who was near, and what-if curves.
"use strict";

const thresholds = (() => {
  const { make, count, number, words, table } = dom;

  function scores() {
    return [
      make("p", { class: "soft" }, "Every score that a stage compared with a threshold; heights are square roots, so that few beside many are seen. ",
        make("span", { class: "key kept" }, "passed"), make("span", { class: "key rejected" }, "did not")),
      make("div", { class: "grid" }, report.overview.scores.map(score)),
    ];
  }

  function score(entry) {
    const passed = entry.passed.reduce((sum, value) => sum + value, 0);
    const failed = entry.failed.reduce((sum, value) => sum + value, 0);
    return make("article", { class: "panel" },
      make("h3", {}, `${entry.stage}: ${words(entry.check)}`),
      make("p", { class: "soft" }, `${entry.says}${entry.log ? ", powers of ten" : ""}`),
      charts.histogram(entry),
      make("p", { class: "soft" }, `${count(passed)} passed, ${count(failed)} did not`,
        entry.key ? [" · ", make("code", {}, entry.key)] : ""),
      near(entry));
  }

  // Filled when it is opened: there are many of them.
  function near(entry) {
    if (!entry.near[0].length && !entry.near[1].length) return null;
    const box = make("details", { class: "near" }, make("summary", {}, "Nearest to the threshold"));
    box.addEventListener("toggle", () => {
      if (!box.open || box.childElementCount > 1) return;
      const strip = (title, subjects) => (subjects.length ? [make("p", { class: "soft" }, title),
        make("div", { class: "strip small" }, subjects.map(([row, person, value]) => pictures.card(row, person, number(value))))] : null);
      box.append(...[strip("just not", entry.near[0]), strip("just passed", entry.near[1])].flat().filter(Boolean));
    });
    return box;
  }

  function sweeps() {
    return report.overview.sweeps.map((found) => {
      const known = found.points.some((point) => point.precision !== null || point.recall !== null);
      const open = found.points.some((point) => point.unmeasured);
      const heads = [[found.key.split(".").pop(), "n"], ["kept", "n"], ...(open ? [["unmeasured", "n"]] : []),
        ...(known ? [["precision", "n"], ["recall", "n"]] : []), [""]];
      const rows = found.points.map((point) => [number(point.value), count(point.kept), ...(open ? [count(point.unmeasured)] : []),
        ...(known ? [number(point.precision), number(point.recall)] : []), point.value === found.current ? "the run" : ""]);
      return make("article", { class: "panel sweep" },
        make("h3", {}, make("code", {}, found.key)),
        make("p", { class: "soft" }, found.says, ". ", make("span", { class: "key kept" }, found.unit),
          known ? [make("span", { class: "key precision" }, "precision"), make("span", { class: "key recall" }, "recall")] : ""),
        charts.sweep(found),
        make("details", {}, make("summary", {}, "Numbers"), table(heads, rows)));
    });
  }

  return { scores, sweeps };
})();
