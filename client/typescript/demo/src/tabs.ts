/** Tabs: one part of the page at a time, chosen by pointer, arrow keys or the address. */

/** Set up the tabs; `opened` is told which one is shown. */
export function startTabs(list: HTMLElement, opened: (id: string) => void): void {
  const tabs = Array.from(list.querySelectorAll<HTMLButtonElement>("[role=tab]"));
  const panelOf = (tab: HTMLElement) => document.getElementById(tab.getAttribute("aria-controls") ?? "");

  function open(chosen: HTMLButtonElement): void {
    for (const tab of tabs) {
      const isChosen = tab === chosen;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
      const panel = panelOf(tab);
      if (panel !== null) {
        panel.hidden = !isChosen;
      }
    }
    opened(panelOf(chosen)?.id ?? "");
  }

  function choose(tab: HTMLButtonElement): void {
    open(tab);
    history.replaceState(null, "", `#${panelOf(tab)?.id}`);
  }

  for (const [index, tab] of tabs.entries()) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", ({ key }) => {
      const target = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: -1 }[key];
      const next = target === undefined ? undefined : tabs.at(target % tabs.length);
      next?.focus();
      if (next !== undefined) {
        choose(next);
      }
    });
  }
  open(tabs.find((tab) => `#${panelOf(tab)?.id}` === location.hash) ?? tabs[0]);
}
