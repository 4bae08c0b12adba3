// Before the first paint: the theme and the language chosen last time, so that nothing flashes.
(() => {
  const root = document.documentElement;
  const theme = localStorage.getItem("prefloop.theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  const chosen = localStorage.getItem("prefloop.language") || navigator.language || "en";
  root.lang = chosen.toLowerCase().startsWith("zh") ? "zh-CN" : "en";
})();
