"use strict";
// What a page without scripts does not have: the search and the order of the table, the notes of the map.
(() => {
  const make = (tag, values, ...inside) => {
    const element = Object.assign(document.createElement(tag), values);
    element.append(...inside);
    return element;
  };

  function lookUp(box) {
    const body = box.querySelector("tbody");
    const rows = [...body.rows];
    const texts = rows.map((row) => row.textContent.normalize("NFKC").toLowerCase());
    const search = make("input", { type: "search", placeholder: 'words, an id, "near miss" …' });
    const found = make("output", {});
    const show = () => {
      const typed = search.value.normalize("NFKC").toLowerCase().match(/"[^"]*"?|\S+/g) ?? [];
      const words = typed.map((word) => word.replaceAll('"', "")); // quotes keep words together
      let number = 0;
      rows.forEach((row, i) => {
        row.hidden = !words.every((word) => texts[i].includes(word));
        number += !row.hidden;
      });
      found.textContent = `${number.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
    };
    search.addEventListener("input", show);
    box.before(make("div", { className: "search" }, make("label", {}, "Search ", search), found));
    show();

    const headings = [...box.querySelectorAll("thead th")];
    const order = (column, direction) => {
      const numeric = headings[column].classList.contains("num");
      const key = (row) => {
        const cell = row.cells[column];
        return numeric ? parseFloat(cell.dataset.v) : cell.textContent.toLowerCase();
      };
      const keyed = rows.map((row, i) => [key(row), i]);
      const last = (value) => (numeric && Number.isNaN(value) ? 1 : 0); // what is unknown comes last
      keyed.sort(([a, i], [b, j]) => last(a) - last(b) || (a < b ? -direction : a > b ? direction : i - j));
      body.append(...keyed.map(([, i]) => rows[i]));
      box.scrollTop = 0;
    };
    headings.forEach((heading, column) => {
      const button = make("button", { type: "button" }, ...heading.childNodes);
      button.addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") === "ascending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        order(column, down ? -1 : 1);
      });
      heading.append(button);
    });
  }

  function explore(figure) {
    const svg = figure.querySelector("svg");
    const points = [...svg.querySelectorAll("path")].map((path) => {
      const [x, y] = path.getAttribute("d").slice(1).split(/[ h]/).map(Number);
      const title = path.querySelector("title");
      title.remove(); // the note takes the place of the browser's own
      return { x, y, text: title.textContent };
    });
    const byPlace = points.map((_, i) => i).sort((i, j) => points[i].x - points[j].x);
    const note = make("div", { className: "tip", hidden: true });
    note.setAttribute("role", "status");
    const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    ring.setAttribute("r", 7);
    ring.setAttribute("class", "ring");
    ring.style.display = "none";
    svg.append(ring);
    figure.append(note);
    let at = -1;

    const show = (i) => {
      at = i;
      note.hidden = i < 0;
      ring.style.display = i < 0 ? "none" : "";
      if (i < 0) return;
      const { x, y, text } = points[i];
      ring.setAttribute("cx", x);
      ring.setAttribute("cy", y);
      note.textContent = text;
      const box = svg.getBoundingClientRect();
      const scale = box.width / svg.viewBox.baseVal.width;
      const left = Math.min(Math.max(x * scale - note.offsetWidth / 2, 0), box.width - note.offsetWidth);
      const above = y * scale - note.offsetHeight - 14;
      note.style.left = `${left}px`;
      note.style.top = `${above >= 0 ? above : y * scale + 14}px`;
    };
    const nearest = (event) => {
      const box = svg.getBoundingClientRect();
      const scale = box.width / svg.viewBox.baseVal.width;
      const x = (event.clientX - box.left) / scale;
      const y = (event.clientY - box.top) / scale;
      let best = -1;
      let least = (18 / scale) ** 2; // no note for what is further than that, in pixels
      points.forEach((point, i) => {
        const distance = (point.x - x) ** 2 + (point.y - y) ** 2;
        if (distance < least) [best, least] = [i, distance];
      });
      return best;
    };
    svg.addEventListener("pointermove", (event) => show(nearest(event)));
    svg.addEventListener("pointerdown", (event) => show(nearest(event)));
    svg.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && show(-1));
    svg.tabIndex = 0;
    svg.addEventListener("blur", () => show(-1));
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") show(-1);
      if (!step) return;
      event.preventDefault();
      const place = at < 0 ? (step > 0 ? 0 : points.length - 1) : byPlace.indexOf(at) + step;
      show(byPlace[(place + points.length) % points.length]);
    });
  }

  document.querySelectorAll(".rows").forEach(lookUp);
  document.querySelectorAll("figure.map").forEach(explore);
})();
