import { huffmanCodes } from './huffman-code.ts';

const codes = new Map(
  huffmanCodes().map(({ symbol, bits, length }) => [symbol, bits.toString(2).padStart(length, '0')]),
);

/** The Huffman code of octets, padded with ones. */
export function encodeHuffman(octets: Uint8Array): Buffer {
  return fromBits([...octets].map((octet) => codes.get(octet)).join(''));
}

/** Octets of a text of zeros and ones, padded with ones. */
export function fromBits(bits: string): Buffer {
  const padded = bits.padEnd(Math.ceil(bits.length / 8) * 8, '1');
  return Buffer.from((padded.match(/.{8}/g) ?? []).map((octet) => Number.parseInt(octet, 2)));
}
