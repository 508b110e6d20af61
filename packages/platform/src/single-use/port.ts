/**
 * `first`: nobody of the fleet has used it; `again`: somebody has; `unsure`: not as far as is remembered, which is less than a
 * whole life: a use before that may be forgotten.
 */
export type Use = 'first' | 'again' | 'unsure';

/** What may be used once by all the gateways of a fleet together, remembered for the longest time it could be used again. */
export interface SingleUse {
  /** Notes the use. Rejects when it cannot tell, which is no less than `unsure`. */
  claim(key: string): Promise<Use>;
  close(): Promise<void>;
}
