/** The public surface: documented, closed, and without `any`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Application } from "typedoc";

interface Node_ {
  readonly name?: string;
  readonly type?: unknown;
  readonly package?: string;
}

/** Find the places of a tree that are of a kind. */
function* found(node: unknown, isFound: (node: Node_) => boolean, path = ""): Generator<string> {
  if (typeof node !== "object" || node === null) {
    return;
  }
  const here = "name" in node && typeof node.name === "string" ? `${path}/${node.name}` : path;
  if (isFound(node)) {
    yield here;
  }
  for (const child of Object.values(node)) {
    yield* found(child, isFound, here);
  }
}

const application = await Application.bootstrapWithPlugins({ options: "typedoc.json", skipErrorChecking: true });
const project = await application.convert();
assert.ok(project);
const surface = application.serializer.projectToObject(project, process.cwd() as never);

test("every name is documented, and every type that it uses is public, too", () => {
  application.validate(project);
  assert.equal(application.logger.warningCount + application.logger.errorCount, 0);
});

test("no type is any, or one of node-seal's", () => {
  const isAny = ({ name, type }: Node_) => type === "intrinsic" && name === "any";
  assert.deepEqual([...found(surface, isAny)], []);
  assert.deepEqual([...found(surface, (node) => node.package === "node-seal")], []);
  const isNumber = ({ name, type }: Node_) => type === "intrinsic" && name === "number";
  assert.ok([...found(surface, isNumber)].length > 10, "types are found where they are");
});
