"use strict";

// Tables: a click on a column's name sorts, the better end first; a second click turns the order round.
for (const table of document.querySelectorAll("table.numbers")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const first = head.dataset.better === "high" ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const body = table.tBodies[0];
      const value = (row) => Number.parseFloat(row.cells[column].dataset.value);
      const sorted = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return order === "ascending" ? x - y : y - x;
      });
      body.append(...sorted);
    });
  });
}

// Pictures: the seed under the pointer, or the one that was clicked, is shown enlarged under all cells.
const pictures = document.getElementById("pictures");
if (pictures) {
  const buttons = [...pictures.tHead.querySelectorAll("button")];
  const figures = [...document.querySelectorAll("#enlarged figure")];
  let held = 0;

  const show = (column) => {
    document.getElementById("chosen").textContent = `${buttons[column].dataset.name}, all cells`;
    [...pictures.tBodies[0].rows].forEach((row, place) => {
      const source = row.cells[column + 1].querySelector("img");
      const target = figures[place].querySelector("img");
      target.hidden = !source;
      figures[place].querySelector(".empty").hidden = Boolean(source);
      if (source) {
        target.src = source.src;
        target.alt = source.alt;
      }
    });
    for (const cell of pictures.querySelectorAll("td")) {
      cell.classList.toggle("chosen", Number(cell.dataset.column) === column);
    }
  };
  const hold = (column) => {
    held = column;
    buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(place === column)));
    show(column);
  };
  const columnOf = (event) => {
    const found = event.target.closest("[data-column]");
    return found ? Number(found.dataset.column) : null;
  };

  pictures.addEventListener("pointerover", (event) => {
    const column = columnOf(event);
    if (column !== null) show(column);
  });
  pictures.addEventListener("pointerleave", () => show(held));
  pictures.addEventListener("click", (event) => {
    const column = columnOf(event);
    if (column !== null) hold(column);
  });
  pictures.tHead.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || columnOf(event) === null) return;
    const next = Math.min(buttons.length - 1, Math.max(0, columnOf(event) + step));
    buttons[next].focus();
    hold(next);
    event.preventDefault();
  });
  show(held);
}

// On paper nothing can be unfolded.
const folded = () => [...document.querySelectorAll("details:not([open])")];
let unfolded = [];
addEventListener("beforeprint", () => {
  unfolded = folded();
  unfolded.forEach((each) => { each.open = true; });
});
addEventListener("afterprint", () => unfolded.forEach((each) => { each.open = false; }));
