import * as assert from "uvu/assert";

/** The promise rejects with this code, and its details match the pattern. */
export async function fails(promise, code, pattern = /./) {
  const error = await promise.then(
    () => assert.unreachable(`${code} expected`),
    (reason) => reason,
  );
  assert.is(error.code, code, error.stack);
  assert.match(JSON.stringify(error.details), pattern);
}
