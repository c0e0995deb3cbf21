"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const config = { responsive: true, displayModeBar: false, scrollZoom: false };

  // Plotly draws with colours of its own: those of the page have to be handed over.
  function readColours() {
    const style = getComputedStyle(document.documentElement);
    return ["--text", "--line", "--page"].map((name) => style.getPropertyValue(name).trim());
  }

  function makeLayout(figure) {
    const [text, line, page] = readColours();
    const layout = structuredClone(figure.layout);
    Object.assign(layout, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" });
    layout.font = { ...layout.font, color: text, family: "system-ui, sans-serif" };
    layout.hoverlabel = { bgcolor: page, bordercolor: line, font: { color: text } };
    const scene = layout.scene || {};
    for (const holder of [layout, scene]) {
      for (const [name, axis] of Object.entries(holder)) {
        if (/^[xyz]axis\d*$/.test(name)) Object.assign(axis, { gridcolor: line, zerolinecolor: line, color: text });
      }
    }
    return layout;
  }

  function draw(figure, number) {
    const place = document.getElementById(`plot-${number}`);
    if (figure.turnable) {
      // A finger or a wheel over the figure moves the page, not the camera; the buttons turn it.
      for (const kind of ["wheel", "touchstart", "touchmove"]) {
        place.addEventListener(kind, (event) => event.stopPropagation(), { capture: true, passive: true });
      }
    }
    return Plotly.newPlot(place, figure.traces, makeLayout(figure), config);
  }

  figures.forEach(draw);
  dark.addEventListener("change", () => {
    figures.forEach((figure, number) => {
      Plotly.react(`plot-${number}`, figure.traces, makeLayout(figure), config);
    });
  });

  for (const buttons of document.querySelectorAll(".turn")) {
    buttons.addEventListener("click", (event) => {
      const step = Number(event.target.dataset.turn || 0) * Math.PI / 8;
      const place = document.getElementById(`plot-${buttons.dataset.plot}`);
      const eye = place._fullLayout.scene.camera.eye;
      const turned = {
        x: eye.x * Math.cos(step) - eye.y * Math.sin(step),
        y: eye.x * Math.sin(step) + eye.y * Math.cos(step),
        z: eye.z,
      };
      Plotly.relayout(place, { "scene.camera.eye": turned });
    });
  }
})();
