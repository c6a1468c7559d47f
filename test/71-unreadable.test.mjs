// Files that are missing, unreadable, folders, empty, cut short or something else: a typed error each time, and the good ones
// still load afterwards.
import { chmod, cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { deflateRawSync } from "node:zlib";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { readRows } from "../dist/data/rows.js";
import { readFuserFolder, writeFuserFolder } from "../dist/fuser/folder.js";
import { C2CError, loadFuser, loadModel } from "../dist/index.js";
import { writeAtomic } from "../dist/weights/atomic.js";
import { readCheckpoint } from "../dist/weights/checkpoint.js";
import { readSafetensors } from "../dist/weights/safetensors.js";
import { fails } from "./support.mjs";

const pair = fileURLToPath(new URL("../models/pair", import.meta.url));
const test = suite("unreadable");
let folder = "";
test.before.each(async () => {
  folder = await mkdtemp(join(tmpdir(), "c2c-unreadable-"));
});
test.after.each(() => rm(folder, { recursive: true, force: true }));

/** What can be wrong with a file, by name: puts it wrong and says what error that may be. */
const WRONGS = {
  missing: async (path) => {
    await rm(path);
    // A folder whose other files name this one is invalid; a file that is asked for by name is not there.
    return { codes: ["IO_FAILED", "FILE_INVALID"], system: "ENOENT" };
  },
  "a folder": async (path) => {
    await rm(path);
    await mkdir(path);
    return { codes: ["IO_FAILED"], system: "EISDIR" };
  },
  "a link to itself": async (path) => {
    await rm(path);
    await symlink(path, path);
    return { codes: ["IO_FAILED"], system: "ELOOP" };
  },
  empty: async (path) => {
    await writeFile(path, "");
    return { codes: ["FILE_INVALID"] };
  },
  "cut short": async (path) => {
    const bytes = await readFile(path);
    await writeFile(path, bytes.subarray(0, bytes.length >> 1));
    return { codes: ["FILE_INVALID"] };
  },
  "something else": async (path) => {
    await writeFile(path, Buffer.alloc(3000, 0xa5));
    return { codes: ["FILE_INVALID"] };
  },
};
/** Files that a model may lack. */
const OPTIONAL = ["tokenizer_config.json", "generation_config.json"];

async function expectWrong(load, wrong, path, optional) {
  const { codes, system } = await WRONGS[wrong](path);
  const error = await load().then(
    async (loaded) => {
      await loaded.dispose?.();
      return undefined;
    },
    (reason) => reason,
  );
  if (error === undefined && optional && wrong === "missing") return;
  assert.ok(error instanceof C2CError, `${wrong}: ${error?.stack ?? "it loaded"}`);
  assert.ok(codes.includes(error.code), `${wrong}: ${error.code} ${error.message}`);
  if (error.code === "IO_FAILED") assert.is(error.details.system, system, error.message);
}

for (const file of [
  "config.json",
  "model.safetensors",
  "tokenizer.json",
  "tokenizer_config.json",
  "generation_config.json",
]) {
  test(`a model's ${file}`, async () => {
    for (const wrong of Object.keys(WRONGS)) {
      const copy = join(folder, wrong);
      await cp(join(pair, "receiver"), copy, { recursive: true });
      const load = () => loadModel({ kind: "folder", path: copy });
      await expectWrong(load, wrong, join(copy, file), OPTIONAL.includes(file));
    }
  });
}

for (const format of ["reference", "native"]) {
  const files =
    format === "native"
      ? ["fuser.json", "fuser.safetensors"]
      : ["final/projector_config.json", "final/projector_0.json", "final/projector_0.pt"];
  for (const file of files) {
    test(`a ${format} fuser's ${file}`, async () => {
      const fuser = await readFuserFolder(join(pair, "fuser"));
      for (const wrong of Object.keys(WRONGS)) {
        const copy = join(folder, wrong);
        await writeFuserFolder(fuser, copy, format);
        await expectWrong(() => readFuserFolder(copy), wrong, join(copy, file), false);
      }
    });
  }
}

test("a folder that is a file, and a file where a folder should be", async () => {
  const path = join(folder, "file");
  await writeFile(path, "text");
  await fails(loadModel({ kind: "folder", path }), "IO_FAILED", /ENOTDIR/);
  await fails(loadModel({ kind: "folder", path: join(path, "deeper") }), "IO_FAILED", /ENOTDIR/);
  await fails(writeFuserFolder(await readFuserFolder(join(pair, "fuser")), path, "native"), "IO_FAILED", /ENOTDIR/);
  await fails(writeFuserFolder(await readFuserFolder(join(pair, "fuser")), join(path, "x"), "native"), "IO_FAILED");
  assert.is(await readFile(path, "utf8"), "text");
  await mkdir(join(folder, "taken"));
  await fails(writeAtomic(join(folder, "taken"), "text"), "IO_FAILED", /EISDIR|ENOTEMPTY|EEXIST/);
});

test("rows of data", async () => {
  for (const name of ["rows.jsonl", "rows.parquet"]) {
    for (const wrong of ["missing", "a folder", "a link to itself", "something else"]) {
      const path = join(folder, name);
      await writeFile(path, "{}\n");
      const read = async () => {
        for await (const _ of readRows(path));
        return {};
      };
      await expectWrong(read, wrong, path, false);
      await rm(path, { recursive: true, force: true });
    }
  }
});

test("no permission", async () => {
  const path = join(folder, "secret");
  await writeFile(path, "text");
  await chmod(path, 0);
  await chmod(folder, 0o555);
  // Root may read everything: it steps down for these calls.
  const root = process.geteuid?.() === 0;
  if (root) process.seteuid(65534);
  try {
    await fails(readSafetensors(path), "IO_FAILED", /EACCES/);
    await fails(readCheckpoint(path), "IO_FAILED", /EACCES/);
    await fails(writeAtomic(join(folder, "new"), "text"), "IO_FAILED", /EACCES/);
    await fails(writeAtomic(path, "text"), "IO_FAILED", /EACCES/);
  } finally {
    if (root) process.seteuid(0);
    await chmod(folder, 0o755);
  }
});

test("a checkpoint that unpacks into more than memory should hold", async () => {
  const size = 101_000_000;
  const packed = deflateRawSync(Buffer.alloc(size), { level: 9 });
  const name = Buffer.from("a/data.pkl");
  const local = Buffer.alloc(30);
  local.writeUInt32LE(0x04034b50);
  local.writeUInt16LE(name.length, 26);
  const central = Buffer.alloc(46);
  central.writeUInt32LE(0x02014b50);
  central.writeUInt16LE(8, 10);
  central.writeUInt32LE(packed.length, 20);
  central.writeUInt32LE(size, 24);
  central.writeUInt16LE(name.length, 28);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50);
  end.writeUInt16LE(1, 10);
  end.writeUInt32LE(central.length + name.length, 12);
  end.writeUInt32LE(local.length + name.length + packed.length, 16);
  const path = join(folder, "bomb.pt");
  await writeFile(path, Buffer.concat([local, name, packed, central, name, end]));
  await fails(readCheckpoint(path), "FILE_INVALID", /larger than/);
});

test("what is whole still loads", async () => {
  const receiver = await loadModel({ kind: "folder", path: join(pair, "receiver") });
  const sharer = await loadModel({ kind: "folder", path: join(pair, "sharer") });
  const fuser = await loadFuser({ kind: "folder", path: join(pair, "fuser") }, { receiver, sharer });
  assert.is(fuser.kind, "c2c");
  for (const handle of [fuser, sharer, receiver]) await handle.dispose();
});

test.run();
