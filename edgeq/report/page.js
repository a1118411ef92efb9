"use strict";
(function () {
  var figures = JSON.parse(document.getElementById("figures").textContent);
  var colours = ["#0969da", "#d1742f", "#2da44e", "#a475f9", "#bf3989", "#1b7c83", "#9a6700", "#6e7781"];

  function themed(layout) {
    var style = getComputedStyle(document.documentElement);
    var ink = style.getPropertyValue("--ink").trim();
    var line = style.getPropertyValue("--line").trim();
    var full = Object.assign({
      margin: { l: 60, r: 20, t: 30, b: 60 }, height: 340, autosize: true, hovermode: "closest",
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }
    }, layout, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", colorway: colours,
      font: { color: ink, family: "system-ui, sans-serif", size: 12 }
    });
    ["xaxis", "yaxis"].forEach(function (name) {
      full[name] = Object.assign({ automargin: true, gridcolor: line, zerolinecolor: line, linecolor: line }, full[name]);
    });
    return full;
  }

  function draw() {
    figures.forEach(function (figure) {
      Plotly.react(figure.id, figure.data, themed(figure.layout), { responsive: true, displayModeBar: false });
    });
  }

  draw();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  // The dark theme's light text would be invisible on paper.
  window.addEventListener("beforeprint", draw);
  window.addEventListener("afterprint", draw);
})();
