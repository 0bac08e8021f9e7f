/** The vectors, in a Worker of a browser. */

import "../vectors/he.test.ts";
import "../vectors/input.test.ts";
import "../vectors/items.test.ts";
import "../vectors/outputs.test.ts";
import { announceWorker } from "../../src/worker.ts";
import { runTests } from "./shims/test.ts";

self.onmessage = async () => self.postMessage(await runTests());
announceWorker();
