/** Sentences: what a person is told when there is no prediction. */

import type { PlatformFeature } from "../../src/index.ts";
import type { Mode, ModelName, Trouble } from "./messages.ts";

const PLATFORMS: Readonly<Record<PlatformFeature, string>> = {
  webAssembly: "This browser cannot load the encryption. A current Firefox, Chrome, Edge or Safari can.",
  webCrypto: "This browser encrypts only on pages that come by HTTPS or from this computer.",
  indexedDB: "This browser does not let the page store a key.",
  worker: "This browser did not start the background program that encrypts. Reload the page to try again.",
};
const MODELS: Readonly<Record<ModelName, string>> = {
  digits: "a model that reads digits of 8 × 8 pixels",
  loans: "a model of loans with these five questions",
};

/** Say what is wrong and what to do. */
export function sentence({ kind, feature }: Trouble, mode: Mode, model: ModelName, isOnline: boolean): string {
  const service = `The service with ${mode} weights`;
  switch (kind) {
    case "unavailable":
    case "deadline":
    case "call":
      return isOnline
        ? `${service} does not answer. It may have stopped: start it again, then try again.`
        : "You are offline. Nothing was sent; your input is still here. Connect, then try again.";
    case "draining":
    case "quotaExceeded":
    case "resourceUnavailable":
    case "keyStoreUnavailable":
      return `${service} has too much to do. Try again in a moment.`;
    case "modelNotFound":
      return `${service} has no model named “${model}”. Start it with the models of this page.`;
    case "wrongModel":
    case "featureCount":
    case "featureName":
      return `${service} has another model under the name “${model}”. This page needs ${MODELS[model]}, and has sent nothing.`;
    case "outOfRange":
    case "notFinite":
    case "offGrid":
    case "input":
      return "The model does not take one of these values. Change it.";
    case "unsupported":
      return PLATFORMS[feature ?? "webAssembly"];
    case "reply":
    case "parameter":
    case "requirement":
      return `${service} sent something that this page does not accept, and the page has discarded it.`;
    default:
      return "Something went wrong on this page. Reload it to try again.";
  }
}
