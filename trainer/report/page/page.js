"use strict";
for (const section of document.querySelectorAll(".examples")) {
  const body = section.querySelector("tbody");
  const rows = [...body.rows];
  const search = section.querySelector(".search");
  const kind = section.querySelector(".kind");
  const count = section.querySelector(".count");
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const kindOf = (row) => row.cells[0].firstChild.textContent.trim();
  const filter = () => {
    const wanted = search.value.toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden =
        !texts.get(row).includes(wanted) || (kind.value !== "" && kindOf(row) !== kind.value);
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = `${shown} of ${rows.length} shown`;
  };
  search.addEventListener("input", filter);
  kind.addEventListener("change", filter);
  section.querySelector(".controls").hidden = false;
  filter();
  const heads = [...section.querySelectorAll("th[data-sort]")];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => {
        const text = row.cells[column].textContent.trim();
        if (head.dataset.sort !== "number") return text;
        return text === "" ? -Infinity : Number(text);
      };
      const order = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b));
      const sorted = [...rows].sort((a, b) => order(key(a), key(b)) * (up ? 1 : -1));
      body.append(...sorted);
    });
  });
}
const scrollers = document.querySelectorAll(".scroll");
const reach = () => {
  for (const one of scrollers) {
    // What scrolls can be reached by the keyboard, and says what it is; the rest is not in the way.
    const wide = one.scrollWidth > one.clientWidth;
    const named = { tabindex: "0", role: "group", "aria-label": one.querySelector("caption").textContent };
    for (const [name, value] of Object.entries(named)) {
      if (wide) one.setAttribute(name, value);
      else one.removeAttribute(name);
    }
  }
};
reach();
addEventListener("resize", reach);
document.addEventListener("toggle", reach, true);
addEventListener("beforeprint", () => {
  for (const closed of document.querySelectorAll("details:not([open])")) {
    closed.open = true;
    closed.dataset.opened = "";
  }
});
addEventListener("afterprint", () => {
  for (const opened of document.querySelectorAll("details[data-opened]")) {
    opened.open = false;
    delete opened.dataset.opened;
  }
});
