/** The tab with a form: a table model whose trees are published, and whose values are not. */

import type { Cell } from "../../src/index.ts";
import { find, Lane } from "./lane.ts";
import { MODES, type Mode } from "./messages.ts";
import { Notices, type Spoken } from "./notices.ts";
import { Line, type Predictor } from "./predictor.ts";

const WISHED = "yes";

/** Set up the tab; return what asks for the first prediction, once the tab is opened. */
export function startLoans(root: HTMLElement, predictor: Predictor, spoken: Spoken): () => void {
  const form = find(root, "form", HTMLFormElement);
  const features = find(root, ".features", HTMLElement);
  const lanes = MODES.map((mode) => lane(mode));
  const notices = new Notices(find(root, ".notice", HTMLElement), "loans", ask);

  function lane(mode: Mode) {
    const shown = new Lane(find(root, ".lanes", HTMLElement), mode);
    const meter = document.importNode(find(document, "#meter", HTMLTemplateElement).content, true);
    const bar = find(meter, ".meter", HTMLElement);
    const label = find(meter, ".label", HTMLElement);
    const chance = find(meter, ".chance", HTMLElement);
    shown.outcome.append(meter);
    const clear = () => {
      shown.clear();
      label.textContent = "–";
      chance.textContent = "";
      bar.style.setProperty("--share", "0");
    };
    const line = new Line(predictor, mode, "loans", {
      busy: (isBusy) => {
        shown.isBusy = isBusy;
      },
      answer(answer) {
        notices.set(mode, undefined);
        shown.show(answer);
        const probability = answer.probabilities[answer.labels.indexOf(WISHED)];
        const percent = Math.round(100 * probability);
        label.textContent = answer.label === WISHED ? "granted" : "refused";
        chance.textContent = `${percent} % for it`;
        bar.style.setProperty("--share", String(probability));
        features.textContent = `Your 5 answers became ${answer.featureCount} numbers, 0 or 1, here on this page.`;
        spoken.say(`The loan is ${label.textContent}, ${chance.textContent}.`);
      },
      trouble(trouble) {
        clear();
        notices.set(mode, trouble);
      },
    });
    clear();
    return { line, clear };
  }

  function ask(): void {
    const row = form.checkValidity() ? rowOf(new FormData(form)) : undefined;
    for (const { line, clear } of lanes) {
      if (row === undefined) {
        clear();
      }
      void line.ask(row);
    }
  }

  form.addEventListener("input", ask);
  form.addEventListener("submit", (event) => event.preventDefault());
  return ask;
}

/** Return the row that a form holds. What is left empty is missing. */
function rowOf(data: FormData): Record<string, Cell> {
  const text = (name: string) => String(data.get(name) ?? "") || null;
  const number = (name: string) => (text(name) === null ? null : Number(text(name)));
  return {
    housing: text("housing"),
    job: text("job"),
    age: number("age"),
    income: number("income"),
    loan: number("loan"),
  };
}
