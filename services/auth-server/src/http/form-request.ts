import type { ClientCertificate } from '../clients/client-certificate.ts';

/** A request to an endpoint that clients authenticate to. */
export interface FormRequest {
  /** `application/x-www-form-urlencoded`. */
  readonly body: string;
  readonly authorization?: string | undefined;
  readonly certificate?: ClientCertificate | undefined;
}
