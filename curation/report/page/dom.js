// Elements and numbers as text. Text of collections only ever becomes text nodes and attributes.
"use strict";

const dom = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return element;
  }

  const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) =>
    fill(document.createElementNS(SVG, tag), attributes, children);

  const whole = new Intl.NumberFormat("en-US");
  const count = (number) => (number === null || number === undefined ? "–" : whole.format(number));

  // A measured number: as many digits as tell something.
  function number(value) {
    if (value === null || value === undefined) return "–";
    if (Number.isInteger(value) || Math.abs(value) >= 10000) return whole.format(Math.round(value));
    return String(Number(value.toPrecision(4)));
  }

  const share = (part, all) => (all ? `${((100 * part) / all).toFixed(part === all ? 0 : 1)} %` : "–");
  const words = (name) => name.replaceAll("_", " ");

  function size(bytes) {
    if (bytes === null || bytes === undefined) return "–";
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let place = 0;
    while (bytes >= 1024 && place < units.length - 1) {
      bytes /= 1024;
      place++;
    }
    return `${number(Number(bytes.toPrecision(3)))} ${units[place]}`;
  }

  function seconds(value) {
    if (value === null || value === undefined) return "–";
    if (value < 120) return `${Number(value.toPrecision(3))} s`;
    return value < 7200 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(1)} h`;
  }

  // A table: heads are [text, class], rows hold text or elements.
  function table(heads, rows) {
    const cells = (tag, row) => row.map((cell, i) => make(tag, { class: heads[i][1] || null }, cell));
    return make("div", { class: "wide" },
      make("table", {},
        make("thead", {}, make("tr", {}, heads.map(([text, kind]) => make("th", { class: kind || null }, text)))),
        make("tbody", {}, rows.map((row) => make("tr", {}, cells("td", row))))));
  }

  // Buttons that turn pages; show(first, count) fills the place and may be asynchronous.
  function pager(total, size, show) {
    let page = 0;
    const last = Math.max(Math.ceil(total / size) - 1, 0);
    const where = make("span", { class: "soft", "aria-live": "polite" });
    const back = make("button", { type: "button", onclick: () => turn(page - 1) }, "Previous");
    const on = make("button", { type: "button", onclick: () => turn(page + 1) }, "Next");
    async function turn(wanted) {
      page = Math.min(Math.max(wanted, 0), last);
      back.disabled = page === 0;
      on.disabled = page === last;
      const first = page * size;
      where.textContent = total
        ? `${count(first + 1)}–${count(Math.min(first + size, total))} of ${count(total)}` : "none";
      await show(first, size);
    }
    const element = make("div", { class: "pager" }, back, where, on);
    element.hidden = total <= size;
    return { element, turn };
  }

  return { make, svg, count, number, share, words, size, seconds, table, pager };
})();
