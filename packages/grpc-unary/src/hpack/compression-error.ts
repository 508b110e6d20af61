/** A header block that cannot be decoded, after which nobody knows what the dynamic table holds (RFC 7541 section 2.3.3). */
export class CompressionError extends Error {
  override readonly name = 'CompressionError';
}
