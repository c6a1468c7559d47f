// typings/native.d.ts is the whole native contract: what it declares is there, and nothing else is.
import { readFile } from "node:fs/promises";
import ts from "typescript";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { projectorKinds } from "../dist/fuser/projectors/index.js";
import { native } from "../dist/native.js";

const source = ts.createSourceFile(
  "native.d.ts",
  await readFile(new URL("../typings/native.d.ts", import.meta.url), "utf8"),
  ts.ScriptTarget.Latest,
);
const declared = new Map();
for (const statement of source.statements) {
  if (ts.isClassDeclaration(statement) || ts.isInterfaceDeclaration(statement))
    declared.set(statement.name.text, statement);
}
const classes = [...declared].filter(([, node]) => ts.isClassDeclaration(node)).map(([name]) => name);

/** Members by name: what kind each is, "method" or "property"; a constructor and an index are neither. */
function members(name) {
  const named = declared.get(name).members.filter(({ name: own }) => own !== undefined);
  return new Map(
    named.map((member) => [
      member.name.text,
      ts.isMethodDeclaration(member) || ts.isMethodSignature(member) ? "method" : "property",
    ]),
  );
}

/** The names in a function's declared result, written in place or as an interface. */
function resultOf(name) {
  const { type } = declared.get("Native").members.find((member) => member.name.text === name);
  assert.ok(ts.isTypeLiteralNode(type), `${name} declares its result in place`);
  return type.members.map((member) => member.name.text).sort();
}

test("exports: every one declared, every declared one there", () => {
  const wanted = members("Native");
  assert.equal(Object.keys(native()).sort(), [...wanted.keys()].sort());
  assert.equal(
    [...wanted]
      .filter(([, kind]) => kind === "property")
      .map(([name]) => name)
      .sort(),
    [...classes].sort(),
    "what is no function is a class, and every class is exported",
  );
  for (const name of wanted.keys()) assert.type(native()[name], "function", name);
});

for (const name of classes) {
  test(`${name}: methods and accessors`, () => {
    const found = Object.entries(Object.getOwnPropertyDescriptors(native()[name].prototype))
      .filter(([member]) => member !== "constructor")
      .map(([member, { get }]) => [member, get === undefined ? "method" : "property"]);
    assert.equal(found.sort(), [...members(name)].sort());
    for (const [member, { get, set, value }] of Object.entries(
      Object.getOwnPropertyDescriptors(native()[name].prototype),
    )) {
      assert.type(get ?? value, "function", member);
      assert.is(set, undefined, `${member} is read only`);
    }
    const statics = Object.getOwnPropertyNames(native()[name]).filter(
      (own) => !["length", "name", "prototype", "arguments", "caller"].includes(own),
    );
    assert.equal(statics, [], "no static members");
  });
}

test("a handle made without its native object is disposed from the start", () => {
  for (const name of classes) {
    if (declared.get(name).members.some(ts.isConstructorDeclaration)) continue;
    const empty = new (native()[name])();
    for (const [member, kind] of members(name)) {
      if (member === "dispose") empty.dispose();
      else if (kind === "property") assert.throws(() => empty[member], /./, `${name}.${member}`);
    }
  }
});

test("results that are objects have the declared members", () => {
  for (const name of ["info", "liveHandles"]) assert.equal(Object.keys(native()[name]()).sort(), resultOf(name));
});

test("projectors: the kinds of both sides are the same", async () => {
  const shape = { kvHeads: 1, headDim: 2 };
  const projectors = [{ kind: "?", receiverLayer: 0, sharerLayer: 0, options: {}, prefix: "" }];
  const spec = { dtype: "float32", device: { kind: "cpu" }, receiver: shape, sharer: shape, projectors };
  const error = await native()
    .loadFuser(spec, { files: [], tensors: [] }, null)
    .then(
      () => assert.unreachable("an unknown kind was loaded"),
      (reason) => reason,
    );
  assert.is(error.code, "UNSUPPORTED");
  assert.equal(
    error.details.supported,
    projectorKinds.map((kind) => kind.class),
  );
});

test.run();
