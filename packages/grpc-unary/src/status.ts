/** Status codes of gRPC that this server gives by itself, or a handler may. */
export const status = {
  ok: 0,
  cancelled: 1,
  unknown: 2,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  permissionDenied: 7,
  resourceExhausted: 8,
  failedPrecondition: 9,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  unauthenticated: 16,
} as const;

/** How a call ends that has no message for an answer. The caller reads the message. */
export interface Failure {
  readonly status: number;
  readonly message: string;
}

/** `grpc-message` of the gRPC protocol over HTTP/2: what is not printable ASCII, and `%`, is percent-encoded UTF-8. */
export function encodeMessage(message: string): string {
  return message.replaceAll(/[^\x20-\x24\x26-\x7e]+/gu, (rest) =>
    [...Buffer.from(rest)].map((octet) => `%${octet.toString(16).toUpperCase().padStart(2, '0')}`).join(''),
  );
}
