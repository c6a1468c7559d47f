/** A tensor of a state_dict: storage type ("FloatStorage"), storage key and shape. */
export interface PickledTensor {
  readonly name: string;
  readonly storage: string;
  readonly key: string;
  readonly shape: readonly number[];
}

/** The pickle (protocol 2) of an OrderedDict of contiguous tensors, one storage each, as torch.load reads it. */
export function writePickle(tensors: readonly PickledTensor[]): Uint8Array {
  const out: number[] = [0x80, 2];
  const ascii = (text: string): void => {
    for (let i = 0; i < text.length; i++) out.push(text.charCodeAt(i));
  };
  const text = (value: string): void => {
    const bytes = new TextEncoder().encode(value);
    out.push(0x58, ...uint32(bytes.length));
    for (const byte of bytes) out.push(byte);
  };
  const integer = (value: number): void => {
    if (value <= 0x7fffffff) out.push(0x4a, ...uint32(value));
    else out.push(0x8a, 8, ...new Uint8Array(new BigInt64Array([BigInt(value)]).buffer));
  };
  const tuple = (values: readonly number[]): void => {
    out.push(0x28);
    values.forEach(integer);
    out.push(0x74);
  };
  const dictionary = (): void => {
    ascii("ccollections\nOrderedDict\n");
    out.push(0x29, 0x52);
  };
  dictionary();
  out.push(0x28);
  for (const { name, storage, key, shape } of tensors) {
    const size = shape.reduce((product, dimension) => product * dimension, 1);
    const strides = shape.map((_, axis) =>
      shape.slice(axis + 1).reduce((product, dimension) => product * Math.max(dimension, 1), 1),
    );
    text(name);
    ascii("ctorch._utils\n_rebuild_tensor_v2\n");
    out.push(0x28, 0x28);
    text("storage");
    ascii(`ctorch\n${storage}\n`);
    text(key);
    text("cpu");
    integer(size);
    out.push(0x74, 0x51);
    integer(0);
    tuple(shape);
    tuple(strides);
    out.push(0x89);
    dictionary();
    out.push(0x74, 0x52);
  }
  out.push(0x75, 0x2e);
  return Uint8Array.from(out);
}

function uint32(value: number): Uint8Array {
  return new Uint8Array(new Uint32Array([value]).buffer);
}
