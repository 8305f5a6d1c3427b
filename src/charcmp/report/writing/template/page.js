"use strict";
const runs = JSON.parse(document.getElementById("runs-data").textContent);
const AXES = ["dataset", "budget", "cell"];

// Filter: an element that names values on an axis stays while all of them are ticked.
function chosen(axis) {
  const boxes = document.querySelectorAll(`#filter input[name="${axis}"]:checked`);
  return new Set([...boxes].map((box) => box.value));
}
function filter() {
  const wanted = Object.fromEntries(AXES.map((axis) => [axis, chosen(axis)]));
  for (const item of document.querySelectorAll("[data-dataset], [data-budget], [data-cell]")) {
    item.hidden = AXES.some((axis) => axis in item.dataset &&
      !JSON.parse(item.dataset[axis]).every((value) => wanted[axis].has(value)));
  }
  const rows = [...document.querySelectorAll("#runs-table tbody tr")];
  const shown = rows.filter((row) => !row.hidden).length;
  document.getElementById("count").textContent = `${shown} of ${rows.length} runs shown`;
}
document.getElementById("filter").addEventListener("change", filter);
document.getElementById("everything").addEventListener("click", () => {
  for (const box of document.querySelectorAll("#filter input")) box.checked = true;
  filter();
});

// Sort: by the number an entry carries, else by its text; what is empty comes last.
function key(row, column) {
  const entry = row.cells[column];
  const text = entry.dataset.value ?? entry.textContent.trim();
  const number = Number(text);
  return { empty: text === "", number, text, isNumber: text !== "" && !Number.isNaN(number) };
}
function order(a, b, sign) {
  if (a.empty !== b.empty) return a.empty ? 1 : -1;
  if (a.isNumber && b.isNumber) return sign * (a.number - b.number);
  return sign * a.text.localeCompare(b.text);
}
for (const button of document.querySelectorAll("thead th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const rising = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const body = head.closest("table").tBodies[0];
    const keyed = [...body.rows].map((row) => [key(row, head.cellIndex), row]);
    keyed.sort((a, b) => order(a[0], b[0], rising ? 1 : -1));
    body.append(...keyed.map((pair) => pair[1]));
  });
}

// Hover, focus or tap: the runs behind a figure of a table or a point of a figure.
const tip = document.getElementById("tip");
function line(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}
function show(item) {
  tip.replaceChildren();
  for (const id of item.dataset.runs.split(" ")) {
    const run = runs[id];
    if (!run) continue;
    const part = document.createElement("p");
    part.append(line("strong", id), line("span", ` ${run.configuration}`));
    if (run.command) part.append(line("code", run.command));
    tip.append(part);
  }
  tip.hidden = false;
  const at = item.getBoundingClientRect();
  const size = tip.getBoundingClientRect();
  const below = at.bottom + 6 + size.height <= innerHeight;
  tip.style.left = `${Math.max(6, Math.min(at.left, innerWidth - size.width - 6))}px`;
  tip.style.top = `${below ? at.bottom + 6 : Math.max(6, at.top - size.height - 6)}px`;
  item.setAttribute("aria-describedby", "tip");
}
function hide() {
  tip.hidden = true;
  document.querySelector("[aria-describedby=tip]")?.removeAttribute("aria-describedby");
}
for (const item of document.querySelectorAll("[data-runs]")) {
  for (const kind of ["mouseenter", "focus", "click"]) item.addEventListener(kind, () => show(item));
  for (const kind of ["mouseleave", "blur"]) item.addEventListener(kind, hide);
}
addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
filter();
