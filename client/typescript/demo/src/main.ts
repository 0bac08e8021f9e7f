/** The page. */

import { startDigits } from "./digits.ts";
import { find } from "./lane.ts";
import { startLoans } from "./loans.ts";
import { Spoken } from "./notices.ts";
import { Predictor } from "./predictor.ts";
import { startTabs } from "./tabs.ts";

const predictor = new Predictor();
predictor.start();
const spoken = new Spoken(find(document, "#spoken", HTMLElement));
startDigits(find(document, "#digits", HTMLElement), predictor, spoken);
const askForLoan = startLoans(find(document, "#loans", HTMLElement), predictor, spoken);
startTabs(find(document, "[role=tablist]", HTMLElement), (id) => {
  if (id === "loans") {
    askForLoan();
  }
});
