// Handles of a test file: whatever a test kept is disposed of after it.
import * as assert from "uvu/assert";
import { liveHandles } from "../../dist/testing.js";

/** `keep(handle)`: disposed of after the test, or by `free()`. `check(name, f)`: a test after which no cache is left. */
export function keeping(test) {
  const kept = [];
  const free = () => {
    for (const handle of kept.splice(0)) handle.dispose();
  };
  test.after.each(free);
  return {
    free,
    keep(handle) {
      kept.push(handle);
      return handle;
    },
    check(name, f) {
      test(name, async () => {
        await f();
        free();
        assert.is(liveHandles().cache, 0);
      });
    },
  };
}
