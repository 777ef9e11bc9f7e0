// Runs before the first paint: the theme that this person chose, if any.
try { const t = JSON.parse(localStorage.getItem("holdfast.theme")); if (t) document.documentElement.dataset.theme = t; } catch { /* no storage */ }
