// Data of the report: each file of data/ hands in one value, when it is asked for. A page that is opened
// from disk may not fetch files, but it may run scripts that lie beside it.
"use strict";

const report = (() => {
  const arrived = new Map(); // name -> value
  const waiting = new Map(); // name -> promise

  function put(name, value) {
    arrived.set(name, value);
  }

  // A promise of the value of data/NAME.js.
  function load(name) {
    if (!waiting.has(name)) {
      waiting.set(name, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = `data/${name}.js`;
        script.onload = () => {
          script.remove();
          if (arrived.has(name)) resolve(arrived.get(name));
          else reject(new Error(`${name} holds no data`));
        };
        script.onerror = () => reject(new Error(`data/${name}.js is missing`));
        document.head.append(script);
      }));
    }
    return waiting.get(name);
  }

  // Entries first … first + count − 1 of a list that is cut into files of list.size entries.
  async function slice(list, first, count) {
    const end = Math.min(first + count, list.count);
    const entries = [];
    for (let page = Math.floor(first / list.size); page * list.size < end; page++) {
      const values = await load(`${list.name}-${page}`);
      const start = page * list.size;
      entries.push(...values.slice(Math.max(first - start, 0), end - start));
    }
    return entries;
  }

  async function entry(list, number) {
    return (await slice(list, number, 1))[0];
  }

  return { put, load, slice, entry, overview: null };
})();
