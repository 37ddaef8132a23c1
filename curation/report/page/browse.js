// All photos and people of a run in pages, by where they ended; and the search by id.
"use strict";

const browse = (() => {
  const { make, count, words, pager, table } = dom;
  const PAGE = 25;
  let choose = null; // set when the section is drawn
  let place = null;

  function section() {
    const { endings, rows } = report.overview;
    choose = make("select", { "aria-label": "Show", onchange: () => show(choose.value) },
      make("option", { value: "" }, `all photos (${count(rows.count)})`),
      endings.map((ending) => make("option", { value: ending.file },
        `${ending.verdict === "kept" ? "kept" : `${ending.stage}: ${words(ending.reason)}`} (${count(ending.count)})`)));
    place = make("div", { id: "rows" });
    show("");
    return [make("p", {}, make("label", {}, "Show ", choose)), place];
  }

  async function show(file) {
    const { rows } = report.overview;
    const subjects = file === "" ? null : await report.load(file);
    const total = subjects === null ? rows.count : subjects.length / 2;
    const body = make("div");
    const pages = pager(total, PAGE, async (first, size) => {
      const wanted = [];
      for (let i = first; i < Math.min(first + size, total); i++) {
        wanted.push(subjects === null ? [i, null] : [subjects[2 * i], subjects[2 * i + 1]]);
      }
      body.replaceChildren(await listed(wanted));
    });
    await pages.turn(0);
    place.replaceChildren(body, pages.element);
  }

  // A table of subjects [row, person]; person null: whoever is the first on the photo.
  async function listed(subjects) {
    const lines = await Promise.all(subjects.map(async ([row, person]) => {
      const [photoId, key, name, , , decisions, people] = await report.entry(report.overview.rows, row);
      const shown = person === null ? (people.length ? 0 : -1) : person;
      const about = shown < 0 ? decisions : people[shown][5];
      const ended = detail.ending(about);
      const others = person === null && people.length > 1 ? ` and ${people.length - 1} more` : "";
      return [
        pictures.card(row, shown, ""),
        make("button", { class: "link", type: "button", onclick: () => detail.open(row, shown) }, name || key),
        make("code", {}, (photoId || "").slice(0, 12) + (shown < 0 ? "" : `…-${shown}`)),
        [detail.pill(ended.verdict), ` ${ended.verdict === "kept" ? "" : ended.text}${others}`],
      ];
    }));
    return table([["", "thumb"], ["photo"], ["id"], ["ended"]], lines);
  }

  async function filter(file) {
    main.draw("browse");
    choose.value = file;
    await show(file);
    document.getElementById("browse").scrollIntoView();
  }

  // Rows of which a key starts with the text: at most `most`.
  async function search(text, most = 200) {
    const { keys, rows } = report.overview;
    let wanted = text.trim().toLowerCase();
    if (!wanted || !keys.first.length) return [];
    const isPhoto = /^[0-9a-f]{64}(-\d+)?$/.test(wanted);
    const isGroup = /^[0-9a-f]{16}-[a-z]+$/.test(wanted);
    if (isPhoto || isGroup) wanted = wanted.slice(0, keys.id);
    else if (/^[0-9a-f]+$/.test(wanted) && wanted.length > keys.id) wanted = wanted.slice(0, keys.id);
    let low = 0, high = keys.first.length;
    while (low < high) { // the last file whose first key is before the text
      const middle = (low + high) >> 1;
      if (keys.first[middle] < wanted) low = middle + 1;
      else high = middle;
    }
    const found = new Set();
    for (let page = Math.max(low - 1, 0); page < keys.first.length && found.size < most; page++) {
      if (keys.first[page] > wanted && !keys.first[page].startsWith(wanted)) break;
      const [names, numbers] = await report.load(`keys-${page}`);
      for (let i = 0; i < names.length && found.size < most; i++) if (names[i].startsWith(wanted)) found.add(numbers[i]);
    }
    return [...found].filter((row) => row < rows.count).sort((a, b) => a - b);
  }

  async function find(text) {
    main.draw("browse");
    const rows = await search(text);
    if (rows.length === 1) {
      const person = Number((/^[0-9a-f]{64}-(\d+)$/.exec(text.trim().toLowerCase()) || [])[1] ?? -1);
      await detail.open(rows[0], person);
    }
    const title = make("p", { class: rows.length ? "soft" : "note" },
      rows.length ? `${count(rows.length)}${rows.length === 200 ? " or more" : ""} photos begin with, or hold someone of, ` : "The report knows no photo, person, identity or group ",
      make("b", {}, text.trim()));
    choose.value = "";
    place.replaceChildren(title, rows.length ? await listed(rows.map((row) => [row, null])) : "");
    document.getElementById("browse").scrollIntoView();
  }

  return { section, filter, find };
})();
