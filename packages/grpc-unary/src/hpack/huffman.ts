import { CompressionError } from './compression-error.ts';
import { endOfString, huffmanCodes } from './huffman-code.ts';

interface Node {
  readonly children: (Node | null)[];
  symbol: number | null;
  /** Whether a string may end here: at most seven bits into the code of EOS, all of them ones. */
  isEnd: boolean;
  index: number;
}

const isEnd = 1;
const isSymbol = 2;
const isFailure = 4;
const nibbles = 16;

/** For each state and each four bits: the next state, the symbol that they complete, and what follows from them. */
const { next, symbols, flags } = createMachine();

let scratch = Buffer.allocUnsafeSlow(1024);

/** The text of a Huffman-coded string, octets as latin1. Throws for EOS and for padding that is not its beginning. */
export function decodeHuffman(bytes: Buffer, start: number, end: number): string {
  // The shortest code has five bits.
  const longest = Math.ceil(((end - start) * 8) / 5);
  if (scratch.length < longest) scratch = Buffer.allocUnsafeSlow(longest);
  const output = scratch;
  let length = 0;
  let state = 0;
  let seen = isEnd;
  for (let offset = start; offset < end; offset += 1) {
    const byte = bytes[offset] as number;
    let at = state * nibbles + (byte >> 4);
    seen = flags[at] as number;
    if ((seen & isSymbol) !== 0) output[length++] = symbols[at] as number;
    else if ((seen & isFailure) !== 0) throw new CompressionError('EOS in a string');
    at = (next[at] as number) * nibbles + (byte & 15);
    seen = flags[at] as number;
    if ((seen & isSymbol) !== 0) output[length++] = symbols[at] as number;
    else if ((seen & isFailure) !== 0) throw new CompressionError('EOS in a string');
    state = next[at] as number;
  }
  // RFC 7541 section 5.2
  if ((seen & isEnd) === 0) throw new CompressionError('padding is not the beginning of EOS');
  return output.toString('latin1', 0, length);
}

function createMachine() {
  const root = createNode();
  const inner: Node[] = [root];
  for (const { symbol, bits, length } of huffmanCodes()) {
    let node = root;
    for (let position = length - 1; position >= 0; position -= 1) {
      const bit = (bits >> position) & 1;
      let child = node.children[bit] ?? null;
      if (child === null) {
        child = createNode();
        node.children[bit] = child;
        if (position > 0) {
          child.index = inner.length;
          inner.push(child);
        }
      }
      node = child;
    }
    node.symbol = symbol;
  }
  let padding: Node | null | undefined = root;
  for (let bits = 0; bits <= 7 && padding; bits += 1) {
    padding.isEnd = true;
    padding = padding.children[1];
  }
  const machine = {
    next: new Uint16Array(inner.length * nibbles),
    symbols: new Uint8Array(inner.length * nibbles),
    flags: new Uint8Array(inner.length * nibbles),
  };
  for (const state of inner) {
    for (let nibble = 0; nibble < nibbles; nibble += 1) {
      const at = state.index * nibbles + nibble;
      let node: Node = state;
      let flag = 0;
      for (let position = 3; position >= 0; position -= 1) {
        node = node.children[(nibble >> position) & 1] ?? root;
        if (node.symbol === null) continue;
        if (node.symbol === endOfString) {
          flag = isFailure;
          node = root;
          break;
        }
        machine.symbols[at] = node.symbol;
        flag |= isSymbol;
        node = root;
      }
      machine.next[at] = node.index;
      machine.flags[at] = flag | (node.isEnd && flag !== isFailure ? isEnd : 0);
    }
  }
  return machine;
}

function createNode(): Node {
  return { children: [null, null], symbol: null, isEnd: false, index: 0 };
}
