// The end of the conversation stays in sight while it grows, unless the reader has scrolled up.
(() => {
  let follows = true;
  const atEnd = () => innerHeight + scrollY >= document.documentElement.scrollHeight - 120;
  addEventListener("scroll", () => { follows = atEnd(); }, { passive: true });
  addEventListener("DOMContentLoaded", () => {
    new ResizeObserver(() => {
      if (follows) scrollTo({ top: document.documentElement.scrollHeight });
    }).observe(document.body);
  });
})();
