// Pictures of a run: kept groups, who was ruled out and why, suspected merges, what the judge was shown.
"use strict";

const galleries = (() => {
  const { make, count, number, words, share, pager } = dom;

  function groups() {
    const list = report.overview.groups;
    const place = make("div", { class: "groups" });
    const pages = pager(list.count, 12, async (first, size) => {
      const found = await report.slice(list, first, size);
      place.replaceChildren(...await Promise.all(found.map(group)));
    });
    pages.turn(0);
    return [place, pages.element];
  }

  async function group({ key, shard, people }) {
    const captions = await Promise.all(people.map(async ([row, person]) => {
      const photo = await report.entry(report.overview.rows, row);
      return photo[6][person][4] || "";
    }));
    return make("article", { class: "group" },
      make("h3", {}, make("code", {}, key), make("span", { class: "soft" }, ` ${people.length} photos · ${shard || "no shard"}`)),
      make("div", { class: "strip" }, people.map(([row, person], i) => pictures.card(row, person, captions[i], captions[i]))));
  }

  function ruledOut() {
    const rows = report.overview.endings.filter((ending) => ending.verdict !== "kept");
    if (!rows.length) return [make("p", { class: "note" }, "Nothing was ruled out.")];
    return rows.map((ending) => make("article", { class: "group" },
      make("h3", {}, `${ending.stage}: ${words(ending.reason)} `,
        detail.pill(ending.verdict), make("span", { class: "soft" }, ` ${count(ending.count)} `),
        make("button", { class: "link", type: "button", onclick: () => browse.filter(ending.file) }, "all of them")),
      make("div", { class: "strip" }, ending.sample.map(([row, person]) => pictures.card(row, person, "")))));
  }

  function merges() {
    const { within, between, doubts, cosine } = report.overview.merges;
    if (!within.length && !between.length) return [make("p", { class: "note" }, "No identities yet.")];
    const suspects = (found) => found.map((suspect) => make("article", { class: "suspect" },
      make("h3", {}, `${suspect.kind ? words(suspect.kind) : "mean cosine"} ${number(suspect.cosine)} `,
        make("span", { class: "soft" }, suspect.kind ? "" : `${suspect.sizes[0]} and ${suspect.sizes[1]} photos`)),
      make("div", { class: "halves" },
        make("div", { class: "strip" }, suspect.a.map(([row, person]) => pictures.card(row, person, ""))),
        make("div", { class: "strip" }, suspect.b.map(([row, person]) => pictures.card(row, person, ""))))));
    return [
      make("h3", { class: "sub" }, "One identity that may be two people"),
      make("p", { class: "soft" }, "Each is cut where its faces differ most; the lower the mean cosine between the halves, "
        + `the more doubtful. Clusters joined from ${number(cosine)} on.`),
      make("div", { class: "grid" }, suspects(within)),
      make("h3", { class: "sub" }, "Two identities that may be one person"),
      make("p", { class: "soft" }, "The pairs that came closest to being joined."),
      between.length ? make("div", { class: "grid" }, suspects(between)) : make("p", { class: "note" }, "None was compared."),
      doubts.length ? [make("h3", { class: "sub" }, "Doubts of the phase identities itself"),
        make("p", { class: "soft" }, "What it wrote down while it grouped; docs/identities.md tells the kinds."),
        make("div", { class: "grid tight" }, suspects(doubts))] : null,
    ];
  }

  function pairs() {
    const list = report.overview.pairs;
    if (!list.count) return [make("p", { class: "note" }, "The judge was asked about no pair.")];
    const { same, different, unknown } = list.said;
    const place = make("div", { class: "grid tight" });
    const pages = pager(list.count, 12, async (first, size) => {
      const found = await report.slice(list, first, size);
      place.replaceChildren(...found.map(pair));
    });
    pages.turn(0);
    return [
      make("p", { class: "soft" }, `Said of ${count(list.count)} pairs: same ${count(same)} (${share(same, list.count)}), `
        + `different ${count(different)}, cannot tell ${count(unknown)}. Those nearest to the cut`
        + `${list.cut === null ? "" : ` (${number(list.cut)})`} come first.`),
      place, pages.element,
    ];
  }

  function pair([rowA, personA, rowB, personB, same, score]) {
    const [text, kind] = same === null ? ["cannot tell", "failed"] : same ? ["same", "kept"] : ["different", "rejected"];
    return make("article", { class: "pair" },
      make("div", { class: "strip two" }, pictures.card(rowA, personA, ""), pictures.card(rowB, personB, "")),
      make("p", {}, make("span", { class: `pill ${kind}` }, text), ` ${number(score)}`));
  }

  return { groups, ruledOut, merges, pairs };
})();
