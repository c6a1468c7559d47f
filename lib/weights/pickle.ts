import { invalid } from "./file.js";

/** A global that a pickle names, "module.name". */
export class PickleGlobal {
  constructor(readonly name: string) {}
}
/** What the persistent id of a storage says. */
export class PickleStorage {
  constructor(
    readonly type: string,
    readonly key: string,
    readonly elements: number,
  ) {}
}
/** A tensor over a storage: offset and strides in elements. */
export class PickleTensor {
  constructor(
    readonly storage: PickleStorage,
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {}
}

const STORAGES = ["torch.FloatStorage", "torch.BFloat16Storage", "torch.HalfStorage", "torch.DoubleStorage"];
const DICT = "collections.OrderedDict";
const REBUILD = "torch._utils._rebuild_tensor_v2";
/** Every global that a state_dict of floating-point tensors needs. */
const ALLOWED: ReadonlySet<string> = new Set([DICT, REBUILD, ...STORAGES]);
const MARK = Symbol("mark");

/**
 * Reads a pickle as torch.save writes it for a state_dict (protocols 2 to 5). Nothing is ever called: the few globals
 * needed are understood, any other is refused. Dictionaries become Maps, tuples and lists arrays, tensors PickleTensor.
 * Errors: FILE_INVALID, naming a refused global or opcode.
 */
export function readPickle(bytes: Uint8Array, path: string): unknown {
  return new Machine(bytes, path).run();
}

class Machine {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #path: string;
  readonly #memo = new Map<number, unknown>();
  readonly #stack: unknown[] = [];
  #at = 0;

  constructor(bytes: Uint8Array, path: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#path = path;
  }

  run(): unknown {
    for (;;) {
      const opcode = this.#u8();
      if (opcode === 0x2e) return this.#pop(); // STOP
      this.#step(opcode);
    }
  }

  #step(opcode: number): void {
    const stack = this.#stack;
    switch (opcode) {
      case 0x80: {
        // PROTO
        const protocol = this.#u8();
        if (protocol < 2 || protocol > 5) throw this.#fail(`pickle protocol ${protocol}`);
        return;
      }
      case 0x95: // FRAME
        this.#skip(8);
        return;
      case 0x28: // MARK
        stack.push(MARK);
        return;
      case 0x4e: // NONE
        stack.push(null);
        return;
      case 0x88: // NEWTRUE
      case 0x89: // NEWFALSE
        stack.push(opcode === 0x88);
        return;
      case 0x4b: // BININT1
        stack.push(this.#u8());
        return;
      case 0x4d: // BININT2
        stack.push(this.#view.getUint16(this.#skip(2), true));
        return;
      case 0x4a: // BININT
        stack.push(this.#view.getInt32(this.#skip(4), true));
        return;
      case 0x8a: // LONG1
        stack.push(this.#long(this.#u8()));
        return;
      case 0x47: // BINFLOAT
        stack.push(this.#view.getFloat64(this.#skip(8), false));
        return;
      case 0x8c: // SHORT_BINUNICODE
        stack.push(this.#text(this.#u8()));
        return;
      case 0x58: // BINUNICODE
        stack.push(this.#text(this.#u32()));
        return;
      case 0x7d: // EMPTY_DICT
        stack.push(new Map());
        return;
      case 0x5d: // EMPTY_LIST
      case 0x29: // EMPTY_TUPLE
        stack.push([]);
        return;
      case 0x85: // TUPLE1
      case 0x86: // TUPLE2
      case 0x87: // TUPLE3
        stack.push(this.#popMany(opcode - 0x84));
        return;
      case 0x74: // TUPLE
        stack.push(this.#popToMark());
        return;
      case 0x71: // BINPUT
        this.#memo.set(this.#u8(), this.#top());
        return;
      case 0x72: // LONG_BINPUT
        this.#memo.set(this.#u32(), this.#top());
        return;
      case 0x94: // MEMOIZE
        this.#memo.set(this.#memo.size, this.#top());
        return;
      case 0x68: // BINGET
        stack.push(this.#recall(this.#u8()));
        return;
      case 0x6a: // LONG_BINGET
        stack.push(this.#recall(this.#u32()));
        return;
      case 0x63: {
        // GLOBAL
        const module = this.#line();
        stack.push(this.#global(`${module}.${this.#line()}`));
        return;
      }
      case 0x93: {
        // STACK_GLOBAL
        const [module, name] = this.#popMany(2);
        if (typeof module !== "string" || typeof name !== "string") throw this.#fail("a global's name is no string");
        stack.push(this.#global(`${module}.${name}`));
        return;
      }
      default:
        this.#build(opcode);
    }
  }

  /** Opcodes that make something of what is on the stack. */
  #build(opcode: number): void {
    const stack = this.#stack;
    switch (opcode) {
      case 0x51: // BINPERSID
        stack.push(this.#storage(this.#pop()));
        return;
      case 0x52: {
        // REDUCE
        const args = this.#pop();
        stack.push(this.#reduce(this.#pop(), args));
        return;
      }
      case 0x62: {
        // BUILD: the only state a state_dict carries is its _metadata, which says nothing about tensors
        this.#pop();
        if (!(this.#top() instanceof Map)) throw this.#fail("state set on something that is no dictionary");
        return;
      }
      case 0x73: {
        // SETITEM
        const pair = this.#popMany(2);
        this.#setItems(this.#top(), pair);
        return;
      }
      case 0x75: {
        // SETITEMS
        const items = this.#popToMark();
        this.#setItems(this.#top(), items);
        return;
      }
      case 0x61: // APPEND
      case 0x65: {
        // APPENDS
        const items = opcode === 0x61 ? [this.#pop()] : this.#popToMark();
        const list = this.#top();
        if (!Array.isArray(list)) throw this.#fail("items appended to something that is no list");
        for (const item of items) list.push(item);
        return;
      }
      default:
        throw this.#fail(`pickle opcode 0x${opcode.toString(16)} is not allowed`);
    }
  }

  #global(name: string): PickleGlobal {
    if (!ALLOWED.has(name)) throw this.#fail(`pickle names the global ${name}, which is not allowed`);
    return new PickleGlobal(name);
  }

  #storage(id: unknown): PickleStorage {
    if (Array.isArray(id) && id.length === 5) {
      const [kind, type, key, , elements] = id as unknown[];
      if (
        kind === "storage" &&
        type instanceof PickleGlobal &&
        STORAGES.includes(type.name) &&
        typeof key === "string" &&
        isCount(elements)
      ) {
        return new PickleStorage(type.name, key, elements);
      }
    }
    throw this.#fail("pickle has a persistent id that is no tensor storage");
  }

  #reduce(callable: unknown, args: unknown): unknown {
    if (callable instanceof PickleGlobal && Array.isArray(args)) {
      if (callable.name === DICT && args.length === 0) return new Map();
      if (callable.name === REBUILD) {
        const [storage, offset, shape, strides] = args as unknown[];
        if (
          storage instanceof PickleStorage &&
          isCount(offset) &&
          isCounts(shape) &&
          isCounts(strides) &&
          shape.length === strides.length
        ) {
          return new PickleTensor(storage, offset, shape, strides);
        }
      }
    }
    throw this.#fail("pickle builds something that is neither a dictionary nor a tensor");
  }

  #setItems(target: unknown, items: readonly unknown[]): void {
    if (!(target instanceof Map)) throw this.#fail("items set on something that is no dictionary");
    if (items.length % 2 !== 0) throw this.#fail("a dictionary item has no value");
    for (let i = 0; i < items.length; i += 2) target.set(items[i], items[i + 1]);
  }

  #top(): unknown {
    const value = this.#stack.at(-1);
    if (this.#stack.length === 0 || value === MARK) throw this.#fail("the pickle's stack is empty");
    return value;
  }

  #pop(): unknown {
    const value = this.#top();
    this.#stack.pop();
    return value;
  }

  #popMany(count: number): unknown[] {
    return Array.from({ length: count }, () => this.#pop()).reverse();
  }

  #popToMark(): unknown[] {
    const mark = this.#stack.lastIndexOf(MARK);
    if (mark < 0) throw this.#fail("the pickle has no mark");
    return this.#stack.splice(mark).slice(1);
  }

  #recall(index: number): unknown {
    if (!this.#memo.has(index)) throw this.#fail(`the pickle recalls ${index}, which it never stored`);
    return this.#memo.get(index);
  }

  /** Moves on by `count` bytes and returns where they begin. */
  #skip(count: number): number {
    const at = this.#at;
    if (at + count > this.#bytes.length) throw this.#fail("the pickle is cut short");
    this.#at += count;
    return at;
  }

  #u8(): number {
    return this.#view.getUint8(this.#skip(1));
  }

  #u32(): number {
    return this.#view.getUint32(this.#skip(4), true);
  }

  #long(size: number): number {
    const at = this.#skip(size);
    let value = 0n;
    for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.#view.getUint8(at + i));
    return Number(size > 0 ? BigInt.asIntN(size * 8, value) : 0n);
  }

  #text(size: number): string {
    const at = this.#skip(size);
    return new TextDecoder().decode(this.#bytes.subarray(at, at + size));
  }

  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) throw this.#fail("the pickle is cut short");
    const text = this.#text(end - this.#at);
    this.#skip(1);
    return text;
  }

  #fail(reason: string): Error {
    return invalid(this.#path, reason);
  }
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every(isCount);
}
