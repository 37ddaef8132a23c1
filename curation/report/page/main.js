// The page: sections in order, each drawn when it comes near to what is in view.
"use strict";

const main = (() => {
  const { make } = dom;
  const drawn = new Set();
  let sections = [];

  function plan() {
    const { sweeps, measures, collection } = report.overview;
    return [
      { id: "funnel", title: "From photos to pairs", fill: () => [tables.figures(), tables.funnel()], now: true },
      ...(measures.length ? [{ id: "truth", title: "Against the truth", fill: tables.measures }] : []),
      { id: "groups", title: "Kept groups", fill: galleries.groups },
      { id: "out", title: "Ruled out", fill: galleries.ruledOut },
      ...(sweeps.length ? [{ id: "sweeps", title: "What if", fill: () => make("div", { class: "grid" }, thresholds.sweeps()) }] : []),
      { id: "scores", title: "Scores", fill: thresholds.scores },
      { id: "merges", title: "Suspected merges", fill: galleries.merges },
      { id: "judge", title: "The judge", fill: galleries.pairs },
      { id: "corpus", title: "The corpus", fill: tables.distribution },
      { id: "rates", title: "Rates", fill: tables.rates },
      { id: "failures", title: "Failures", fill: tables.failures },
      { id: "browse", title: "All photos", fill: browse.section },
    ];
  }

  function draw(id) {
    if (drawn.has(id)) return;
    drawn.add(id);
    const { fill } = sections.find((section) => section.id === id);
    document.getElementById(id).append(...[fill()].flat(Infinity).filter(Boolean));
  }

  function start() {
    const { pipeline, run, description } = report.overview;
    document.title = `${pipeline} · persona report`;
    sections = plan();
    const page = document.getElementById("start");
    page.append(make("div", { class: "head" }, make("h1", {}, pipeline),
      make("p", { class: "soft" }, description, make("br"), make("code", {}, run))));
    page.append(...sections.map(({ id, title }) => make("section", { id }, make("h2", {}, title))));
    document.getElementById("contents").append(...sections.map(({ id, title }) => make("a", { href: `#${id}` }, title)));
    sections.filter((section) => section.now).forEach(({ id }) => draw(id));
    const near = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting) draw(target.id);
    }, { rootMargin: "400px" });
    document.querySelectorAll("main > section").forEach((section) => near.observe(section));
    document.getElementById("search").addEventListener("submit", (event) => {
      event.preventDefault();
      const text = document.getElementById("find").value;
      if (text.trim()) browse.find(text);
    });
    document.getElementById("detail").addEventListener("click", (event) => {
      if (event.target.id === "detail") event.target.close(); // a click beside it
    });
    const asked = new URLSearchParams(location.hash.slice(1)).get("find");
    if (asked) browse.find(asked);
  }

  report.load("overview").then((overview) => {
    report.overview = overview;
    start();
  }, (error) => {
    document.getElementById("start").append(make("p", { class: "note" }, `This report is not whole: ${error.message}`));
  });

  return { draw };
})();
