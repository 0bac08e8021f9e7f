/** Predictor: asks the Worker, one question of a kind at a time, and always the latest one. */

import { SealserveError } from "../../src/errors.ts";
import type { Row } from "../../src/index.ts";
import { startWorker } from "../../src/worker.ts";
import type { Answer, Mode, ModelName, Question, Reply, Trouble } from "./messages.ts";

/** What shows what becomes of the questions of one kind. */
export interface Shows {
  /** A question is on its way, or none is any more. */
  busy(isBusy: boolean): void;
  answer(answer: Answer): void;
  trouble(trouble: Trouble): void;
}

/** Starts the Worker, once. */
export class Predictor {
  #worker: Promise<Worker> | undefined;
  #lastId = 0;
  readonly #waiting = new Map<number, (reply: Reply) => void>();

  /** Ask for a prediction. */
  async ask(question: Omit<Question, "id">): Promise<Reply> {
    const id = ++this.#lastId;
    try {
      const worker = await this.#started();
      return await new Promise((resolve) => {
        this.#waiting.set(id, resolve);
        worker.postMessage({ ...question, id });
      });
    } catch (error) {
      const isUnsupported = error instanceof SealserveError && error.is("unsupported");
      return { id, trouble: isUnsupported ? { kind: "unsupported", feature: "worker" } : { kind: "unknown" } };
    }
  }

  /** Start the Worker early. */
  start(): void {
    this.#started().catch(() => {}); // a question tells
  }

  #started(): Promise<Worker> {
    this.#worker ??= this.#start().catch((error: unknown) => {
      this.#worker = undefined;
      throw error;
    });
    return this.#worker;
  }

  async #start(): Promise<Worker> {
    const worker = await startWorker(
      () => new Worker(new URL("./predictor.worker.ts", import.meta.url), { type: "module" }),
    );
    worker.onmessage = ({ data }: MessageEvent<Reply>) => {
      this.#waiting.get(data.id)?.(data);
      this.#waiting.delete(data.id);
    };
    return worker;
  }
}

/** Asks for predictions of rows that change quickly: rows that come while one is under way wait, and the last stays. */
export class Line {
  readonly #predictor: Predictor;
  readonly #mode: Mode;
  readonly #model: ModelName;
  readonly #shows: Shows;
  #latest: Row | undefined;
  #isBusy = false;

  constructor(predictor: Predictor, mode: Mode, model: ModelName, shows: Shows) {
    this.#predictor = predictor;
    this.#mode = mode;
    this.#model = model;
    this.#shows = shows;
  }

  /** Ask for the prediction of a row; of none, forget the one that waits, and show no answer that is under way. */
  async ask(row: Row | undefined): Promise<void> {
    this.#latest = row;
    if (this.#isBusy || row === undefined) {
      return;
    }
    this.#isBusy = true;
    this.#shows.busy(true);
    for (let asked = this.#latest; asked !== undefined; asked = this.#latest === asked ? undefined : this.#latest) {
      const reply = await this.#predictor.ask({ mode: this.#mode, model: this.#model, row: asked });
      if (this.#latest === undefined) {
        break;
      }
      if ("answer" in reply) {
        this.#shows.answer(reply.answer);
      } else {
        this.#shows.trouble(reply.trouble);
      }
    }
    this.#isBusy = false;
    this.#shows.busy(false);
  }
}
