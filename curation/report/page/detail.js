// All decisions about one photo and the people on it, in a dialog.
"use strict";

const detail = (() => {
  const { make, number, words, table } = dom;
  const VERDICTS = ["kept", "rejected", "failed"];
  const HOLDS = { "≥": (a, b) => a >= b, "<": (a, b) => a < b, "≤": (a, b) => a <= b, ">": (a, b) => a > b };

  // A decision as it is stored: a stage alone, or [stage, verdict, reason, checks, detail].
  function read(short) {
    const word = (place) => (place < 0 ? "" : report.overview.words[place]);
    if (typeof short === "number") return { stage: word(short), verdict: "kept", reason: "", checks: [], said: "" };
    const [stage, verdict, reason, flat = [], said = ""] = short;
    const checks = [];
    for (let i = 0; i < flat.length; i += 4) {
      checks.push({ name: word(flat[i]), score: flat[i + 1], threshold: flat[i + 2], passed: !!flat[i + 3] });
    }
    return { stage: word(stage), verdict: VERDICTS[verdict], reason: word(reason), checks, said };
  }

  const pill = (verdict) => make("span", { class: `pill ${verdict}` }, verdict);

  // Where a subject ended: its last decision in words.
  function ending(decisions) {
    const last = read(decisions[decisions.length - 1]);
    return { ...last, text: last.verdict === "kept" ? "kept" : `${last.stage}: ${words(last.reason)}` };
  }

  function decisionRows(decisions) {
    return decisions.map(read).map((decision) => [
      decision.stage,
      pill(decision.verdict),
      make("div", {},
        decision.reason ? make("b", {}, words(decision.reason)) : null,
        decision.checks.map((check) => make("span", { class: check.passed ? "check" : "check missed" },
          ...compared(decision.stage, check))),
        decision.said ? make("span", { class: "soft said" }, decision.said) : null),
    ]);
  }

  // The quantity with its number, and the threshold behind a sign that says how the two lie.
  function compared(stage, { name, score, threshold, passed }) {
    const [says, unit, per, ...signs] = report.overview.numbers[stage]?.[name] ?? [words(name || "score"), "", 1, "≥", "<"];
    const text = [says, number(score / per), unit].filter(Boolean).join(" ");
    const sign = signs[passed ? 0 : 1];
    if (threshold === null || !HOLDS[sign](score, threshold)) return [text];
    return [text, make("i", {}, ` ${sign} ${number(threshold / per)}`)];
  }

  function decided(decisions) {
    return table([["stage"], ["verdict"], ["measured"]], decisionRows(decisions));
  }

  async function open(row, person) {
    const dialog = document.getElementById("detail");
    const [photoId, key, name, width, height, decisions, people] = await report.entry(report.overview.rows, row);
    const shown = people.map((found, place) => one(row, place, found, photoId, place === person));
    const close = make("button", { class: "close", type: "button", "aria-label": "Close", onclick: () => dialog.close() }, "×");
    dialog.replaceChildren(close,
      make("h2", {}, name || key.split("/").pop()),
      make("p", { class: "soft ids" }, key, make("br"), photoId || "no bytes were read",
        width ? ` · ${width} × ${height} px` : ""),
      make("div", { class: "who" }, people.length ? null : pictures.image(row, -1, "the photo"),
        make("div", {}, make("h3", {}, "The photo"), decided(decisions))),
      ...shown);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    dialog.querySelector(".chosen")?.scrollIntoView({ block: "nearest" });
  }

  function one(row, place, [box, regions, identity, group, caption, decisions, fromFace], photoId, chosen) {
    return make("div", { class: chosen ? "who chosen" : "who" },
      pictures.image(row, place, "the person"),
      make("div", {},
        make("h3", {}, `Person ${place} `, make("span", { class: "soft" }, ending(decisions).text)),
        make("p", { class: "soft ids" }, `${photoId}-${place}`, make("br"),
          `box ${box[2] - box[0]} × ${box[3] - box[1]} px`,
          fromFace ? " · derived from a face" : "",
          regions === null ? "" : ` · ${regions} regions`,
          identity ? ` · identity ${identity}` : "", group ? ` · group ${group}` : ""),
        caption ? make("p", {}, caption) : null,
        decided(decisions)));
  }

  return { open, ending, pill };
})();
