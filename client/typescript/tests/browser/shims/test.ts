/** What stands in the place of node:test in a browser: tests run one after the other. */

/** What has become of a test. */
export interface Outcome {
  readonly name: string;
  /** Why it failed. */
  readonly error?: string;
}

type Body = (context: Context) => unknown;

const tests: { readonly name: string; readonly body: Body }[] = [];
const outcomes: Outcome[] = [];

class Context {
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  async test(name: string, body: Body): Promise<void> {
    await run(`${this.#name}: ${name}`, body);
  }
}

/** Register a test. */
export function test(name: string, body: Body): void {
  tests.push({ name, body });
}

/** Run all tests that are registered. */
export async function runTests(): Promise<readonly Outcome[]> {
  for (const { name, body } of tests) {
    await run(name, body);
  }
  return outcomes;
}

async function run(name: string, body: Body): Promise<void> {
  try {
    await body(new Context(name));
    outcomes.push({ name });
  } catch (error) {
    outcomes.push({ name, error: error instanceof Error ? `${error.message}\n${error.stack}` : String(error) });
  }
}
