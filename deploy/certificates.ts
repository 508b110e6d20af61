/**
 * A certificate authority of a deployment's own, and certificates by it that carry a SPIFFE ID, for mutual TLS between the
 * services where no SPIRE or mesh issues them.
 * @module
 */
import 'reflect-metadata';
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  type X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';

/** PEM. */
export interface IssuedCertificate {
  readonly certificate: string;
  readonly privateKey: string;
}

export interface CertificateAuthority {
  /** PEM, what verifies the others. */
  readonly certificate: string;
  /** For a service: `spiffeId` such as spiffe://trust.domain/gateway, and the DNS names it is reached by. */
  issue(spiffeId: string, dnsNames?: readonly string[], lifeMs?: number): Promise<IssuedCertificate>;
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const clockToleranceMs = 300_000;
/** Ten years: a deployment that lives longer has found something that rotates. */
const lifeMsDefault = 3650 * 24 * 3600 * 1000;

/** A new one each time; its private key is never written anywhere, so nothing can be issued by it later. */
export async function createCertificateAuthority(name: string, nowMs: number): Promise<CertificateAuthority> {
  const notBefore = new Date(nowMs - clockToleranceMs);
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const authority: X509Certificate = await X509CertificateGenerator.createSelfSigned({
    name: `CN=${name}`,
    notBefore,
    notAfter: new Date(nowMs + lifeMsDefault),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    ],
  });
  return {
    certificate: authority.toString('pem'),
    async issue(spiffeId, dnsNames = [], lifeMs = lifeMsDefault) {
      const own = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
      const certificate = await X509CertificateGenerator.create({
        subject: 'O=token-gateway',
        issuer: authority.subject,
        notBefore,
        notAfter: new Date(nowMs + lifeMs),
        signingAlgorithm: algorithm,
        publicKey: own.publicKey,
        signingKey: keys.privateKey,
        extensions: [
          new BasicConstraintsExtension(false, undefined, true),
          new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
          new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
          new SubjectAlternativeNameExtension([
            { type: 'url', value: spiffeId },
            ...dnsNames.map((value) => ({ type: 'dns' as const, value })),
          ]),
        ],
      });
      const privateKey = await crypto.subtle.exportKey('pkcs8', own.privateKey);
      return { certificate: certificate.toString('pem'), privateKey: PemConverter.encode(privateKey, 'PRIVATE KEY') };
    },
  };
}
