"use strict";
// Sorts a table by the column whose heading was activated: largest first for numbers, then smallest first, then as it was. What has no value stays last.
const said = document.getElementById("said");

function compare(a, b, direction) {
  if (a === null || b === null) return (a === null) - (b === null);
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return direction * order;
}

function key(row, column, numeric) {
  const cell = row.cells[column];
  if ("value" in cell.dataset) return Number(cell.dataset.value);
  const text = cell.textContent.trim();
  return numeric || text === "" || text === "–" ? null : text;
}

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const numeric = heading.classList.contains("number");
    const cycle = numeric ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
    heading.querySelector("button").addEventListener("click", () => {
      const next = cycle[(cycle.indexOf(heading.getAttribute("aria-sort")) + 1) % 3];
      for (const other of headings) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", next);
      const direction = next === "ascending" ? 1 : -1;
      const rows = next === "none" ? original : [...original].sort((a, b) => compare(key(a, column, numeric), key(b, column, numeric), direction));
      body.append(...rows);
      const name = heading.textContent.trim();
      said.textContent = next === "none" ? "In the original order." : `Sorted by ${name}, ${next}.`;
    });
  });
}
