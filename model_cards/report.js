"use strict";
// Tables whose heads are buttons: the first press sorts up, or down for numbers, the next ones turn it round.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => sort(table, heads, column));
  });
}

function sort(table, heads, column) {
  const body = table.tBodies[0];
  const numbers = heads[column].classList.contains("number");
  const before = heads[column].getAttribute("aria-sort");
  const down = before === null ? numbers : before === "ascending";
  for (const head of heads) head.removeAttribute("aria-sort");
  heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (!numbers) return x.localeCompare(y, "en", { numeric: true });
    // A cell without a number stands last, whichever way.
    if (x === "" || y === "") return (x === "" ? 1 : 0) - (y === "" ? 1 : 0) || 0;
    return Number(x) - Number(y);
  });
  if (down) rows.reverse();
  if (numbers) rows.sort((a, b) => (key(a) === "" ? 1 : 0) - (key(b) === "" ? 1 : 0));
  body.append(...rows);
}

for (const choice of document.querySelectorAll("input[name=who]")) {
  choice.addEventListener("change", () => {
    for (const tile of document.querySelectorAll("figure.tile")) {
      tile.hidden = choice.value !== "all" && tile.dataset.who !== choice.value;
    }
  });
}
