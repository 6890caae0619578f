"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const marks = new Map(); // trial -> its marks in all plots
  for (const [group, trials] of Object.entries(data.marks)) {
    const element = document.getElementById(group);
    if (!element) continue;
    const shapes = [...element.querySelectorAll("use, path")].filter((shape) => !shape.closest("defs"));
    if (shapes.length !== trials.length) continue;
    shapes.forEach((shape, place) => {
      shape.classList.add("mark");
      shape.dataset.trial = trials[place];
      if (!marks.has(trials[place])) marks.set(trials[place], []);
      marks.get(trials[place]).push(shape);
    });
  }
  for (const row of document.querySelectorAll("tr[data-trial]")) {
    const trial = Number(row.dataset.trial);
    if (!marks.has(trial)) marks.set(trial, []);
    marks.get(trial).push(row);
  }
  let lit = null;
  const light = (trial) => {
    if (lit === trial) return;
    for (const shape of marks.get(lit) || []) shape.classList.remove("lit", "lit-row");
    lit = trial;
    for (const shape of marks.get(trial) || []) shape.classList.add(shape.tagName === "TR" ? "lit-row" : "lit");
  };
  document.addEventListener("mousemove", (event) => {
    const shape = event.target.closest && event.target.closest("[data-trial]");
    if (!shape) {
      tip.hidden = true;
      light(null);
      return;
    }
    const trial = Number(shape.dataset.trial);
    light(trial);
    tip.hidden = shape.tagName === "TR";
    if (tip.hidden) return;
    tip.textContent = data.trials[trial] || "trial " + trial;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(event.clientX + 14, innerWidth - box.width - 8)) + "px";
    tip.style.top = Math.max(8, event.clientY + 16 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 16) + "px";
  });
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const shown = Number(table.dataset.shown);
    let all = !(shown && body.rows.length > shown + 3);
    const show = () => [...body.rows].forEach((row, place) => (row.hidden = !all && place >= shown));
    if (!all) {
      const button = document.createElement("button");
      button.className = "more";
      button.textContent = "Show all " + body.rows.length + " rows";
      button.onclick = () => { all = true; show(); button.remove(); };
      table.parentElement.after(button);
    }
    show();
    const value = (row, column) => {
      const cell = row.cells[column];
      const text = cell.dataset.value !== undefined ? cell.dataset.value : cell.textContent.trim();
      return text === "" ? null : isNaN(text) ? text : Number(text);
    };
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.append(...head.childNodes);
      head.append(button);
      let down = false;
      button.onclick = () => {
        down = !down;
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [value(a, column), value(b, column)];
          if (x === null || y === null) return (x === null) - (y === null);
          const order = typeof x === typeof y ? (x > y) - (x < y) : typeof x === "number" ? -1 : 1;
          return down ? order : -order;
        });
        body.append(...rows);
        show();
      };
    });
  }
})();
