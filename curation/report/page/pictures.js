// Thumbnails of subjects [row, person], loaded when they come near to what is in view.
"use strict";

const pictures = (() => {
  const { make } = dom;
  let places = null; // "row:person" -> number of the thumbnail

  function numberOf(row, person) {
    if (places === null) {
      places = new Map();
      const flat = report.overview.thumbs.of;
      for (let i = 0; i < flat.length; i += 2) places.set(`${flat[i]}:${flat[i + 1]}`, i / 2);
    }
    return places.get(`${row}:${person}`);
  }

  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      report.entry(report.overview.thumbs, Number(target.dataset.thumb)).then((data) => {
        target.src = `data:image/jpeg;base64,${data}`;
        target.alt = target.dataset.alt; // not before: a browser would draw it as a broken picture
      });
    }
  }, { rootMargin: "300px" });

  // The picture alone; of a subject without one, an empty frame.
  function image(row, person, alt) {
    const number = numberOf(row, person);
    if (number === undefined) return make("span", { class: "frame none" }, "no picture");
    const picture = make("img", { class: "frame", alt: "", "data-alt": alt, "data-thumb": number });
    seen.observe(picture);
    return picture;
  }

  // A picture with a caption that opens all decisions about its subject.
  function card(row, person, caption, alt = "photo") {
    return make("button", {
      class: "card", type: "button", "data-row": row, "data-person": person,
      onclick: () => detail.open(row, person),
    }, image(row, person, alt), caption === "" ? null : make("span", { class: "caption" }, caption));
  }

  return { image, card };
})();
