// The funnel, distributions, rates, failures, and measures against a truth.
"use strict";

const tables = (() => {
  const { make, count, number, words, share, size, seconds, table } = dom;

  function figures() {
    const { collection, identities, packed, pairs_kept: pairs, state } = report.overview;
    const shown = [
      [count(collection), "photos in the collection"],
      [count(identities), "people"],
      [count(packed.groups), "groups: a person in one outfit"],
      [count(packed.photos), "photos in groups", share(packed.photos, collection)],
      [count(pairs), "pairs to train on"],
      [size(packed.bytes), `in ${count(packed.shards)} ${packed.shards === 1 ? "shard" : "shards"}`],
    ];
    return [
      state === "finished" ? null : make("p", { class: "note" }, `The run is ${state}: what follows is what it has committed so far.`),
      make("dl", { class: "figures" }, shown.map(([value, says, more]) => make("div", {},
        make("dt", {}, says), make("dd", {}, value, more ? make("small", {}, ` ${more}`) : null)))),
    ];
  }

  function funnel() {
    const { stages, endings, excluded, opt_out: listed } = report.overview;
    const file = new Map(endings.map((ending) => [`${ending.stage} ${ending.reason}`, ending.file]));
    const rows = stages.map((stage) => {
      const part = (name) => charts.width(make("span", { class: name, title: `${name} ${count(stage[name])}` }),
        stage.in ? (100 * stage[name]) / stage.in : 0);
      const reasons = Object.entries(stage.reasons).map(([reason, many]) => {
        const name = file.get(`${stage.stage} ${reason}`);
        const text = [words(reason), " ", make("b", {}, count(many))];
        return name === undefined ? make("span", { class: "reason" }, text)
          : make("button", { class: "reason", type: "button", onclick: () => browse.filter(name) }, text);
      });
      return make("div", { class: "stage" },
        make("div", { class: "what" }, make("b", {}, stage.stage), make("span", { class: "soft" }, ` ${stage.unit}`)),
        make("div", { class: "flow" }, part("kept"), part("rejected"), part("failed")),
        make("div", { class: "n" }, count(stage.kept), make("span", { class: "soft" }, ` of ${count(stage.in)}`)),
        make("div", { class: "reasons" }, reasons));
    });
    return [
      make("p", { class: "soft" }, "Each stage: what came in, and how much of it stayed. ",
        make("span", { class: "key kept" }, "kept"), make("span", { class: "key rejected" }, "rejected"),
        make("span", { class: "key failed" }, "failed")),
      make("div", { class: "funnel" }, rows),
      listed ? make("p", { class: "soft" }, optOuts(listed)) : null,
      excluded ? make("p", { class: "soft" }, `${count(excluded)} photos are counted and not shown: their people opted out, or were forgotten.`) : null,
    ];
  }

  function optOuts({ lines, matched, missed }) {
    const more = lines - matched - missed.length;
    const which = missed.length ? `; lines that matched nothing: ${missed.join(", ")}${more > 0 ? ` and ${count(more)} more` : ""}` : "";
    return `Opt-out list: ${count(lines)} lines, ${count(matched)} matched${which}.`;
  }

  function distribution() {
    return [
      make("p", { class: "soft" }, "Of the packed groups. ", make("span", { class: "key paper" }, "the corpus of the Visual Persona paper"),
        " where it says (arXiv 2503.15406: 580,000 photos of 100,000 people)."),
      make("div", { class: "grid" }, report.overview.distribution.map((entry) => make("article", { class: "panel" },
        make("h3", {}, entry.title, make("span", { class: "soft" }, entry.mean === null ? "" : ` mean ${number(entry.mean)}`)),
        entry.count ? charts.bars(entry) : make("p", { class: "soft" }, "nothing yet")))),
    ];
  }

  function rates() {
    const rows = report.overview.rates.map((rate) => [rate.folder, count(rate.rows), count(rate.fragments), count(rate.workers),
      seconds(rate.worker_s), number(rate.rows_per_worker_s), rate.cpu_share === null ? "–" : share(rate.cpu_share, 1),
      seconds(rate.wall_s), rate.busy === null ? "–" : share(rate.busy, 1)]);
    const heads = [["work"], ["rows", "n"], ["fragments", "n"], ["workers", "n"], ["worker time", "n"], ["rows / worker s", "n"],
      ["CPU of a worker", "n"], ["last start", "n"], ["workers busy", "n"]];
    const stages = report.overview.rates.flatMap((rate) => rate.stages.map((stage) => [rate.folder, stage.stage, count(stage.rows),
      seconds(stage.seconds), stage.rows ? number(stage.seconds / stage.rows) : "–", share(stage.seconds, rate.worker_s)]));
    const stageHeads = [["work"], ["stage"], ["rows", "n"], ["worker time", "n"], ["s / row", "n"], ["of the work", "n"]];
    return [table(heads, rows), make("p", { class: "soft" }, "Worker time is over all starts of the run; the last two columns are of the last one."),
      ...(stages.length ? [table(stageHeads, stages)] : [])];
  }

  function failures() {
    const found = report.overview.failures;
    if (!found.length) return [make("p", { class: "note" }, "Nothing failed.")];
    const rows = found.map(({ stage, reason, detail: said, count: many, subject }) => [count(many), stage, words(reason), said,
      make("button", { class: "link", type: "button", onclick: () => detail.open(...subject) }, "one of them")]);
    return [
      make("p", { class: "soft" }, "Failed means that nobody knows; ", make("code", {}, "persona retry"), " takes these up again."),
      table([["rows", "n"], ["stage"], ["reason"], ["said"], [""]], rows),
    ];
  }

  function measures() {
    const rows = report.overview.measures.map(([key, says, value, of]) => [says, value, of === null ? "" : count(of), make("code", {}, key)]);
    return [table([["measure"], ["value", "n"], ["of", "n"], ["key"]], rows)];
  }

  return { figures, funnel, distribution, rates, failures, measures };
})();
