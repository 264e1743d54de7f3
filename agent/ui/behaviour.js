// The end of the conversation stays in sight while it grows, unless the reader has scrolled up.
(() => {
  let follows = true;
  const atEnd = () => innerHeight + scrollY >= document.documentElement.scrollHeight - 120;
  addEventListener("scroll", () => { follows = atEnd(); }, { passive: true });
  addEventListener("DOMContentLoaded", () => {
    new ResizeObserver(() => {
      if (follows) scrollTo({ top: document.documentElement.scrollHeight });
    }).observe(document.body);
    // The drawers are landmarks, and the library gives them no names.
    const names = { "q-drawer--left": "Conversations", "q-drawer--right": "Graph and history" };
    new MutationObserver(() => {
      for (const [side, name] of Object.entries(names)) {
        document.querySelector(`aside.${side}:not([aria-label])`)?.setAttribute("aria-label", name);
      }
    }).observe(document.body, { childList: true, subtree: true });
  });
})();
