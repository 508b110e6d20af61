/**
 * Sends as many credentials that nobody has as its core can, each one once: `flood-sender.ts PORT SECONDS KIND SOURCES TOKEN`. Says at the
 * end how many were answered, and how many of those were let in.
 */
import { CheckResponse } from '@token-gateway/schemas/ext-authz';
import { apiKeyOf } from './api-keys.ts';
import { checkRequest } from './ext-authz-client.ts';
import { TransportLoad } from './transport-load.ts';

const [port = '', seconds = '', kind = '', sources = '', template = ''] = process.argv.slice(2);
let sent = Number(process.hrtime.bigint() % 1_000_000_007n);
let letIn = 0;

/** All of one length, so that the first one is the form of all. */
function credential(): string {
  sent += 1;
  if (kind === 'key') return `Token ${apiKeyOf(sent)}`;
  // Another signature: whoever looks at it has to verify it.
  const number = sent.toString(36).padStart(12, 'a');
  return `Bearer ${template.slice(0, -12)}${number}`;
}

function address(): string {
  const source = sent % Number(sources);
  // All of one length, too.
  return `10.100.${100 + (source >> 7)}.${100 + (source & 0x7f)}`;
}

const first = { credential: credential(), address: address() };
const form = checkRequest(first.credential, first.address);
const places = { credential: form.indexOf(first.credential), address: form.indexOf(first.address) };
function next(): Buffer {
  const request = Buffer.from(form);
  request.write(credential(), places.credential, 'latin1');
  request.write(address(), places.address, 'latin1');
  return request;
}

const load = await TransportLoad.open(Number(port), next, (answer) => {
  if (CheckResponse.decode(answer).status?.code === 0) letIn += 1;
  return true;
});
process.send?.('ready');
await new Promise((resolve) => process.once('message', resolve));
const count = await load.run(64, Number(seconds) * 1000);
process.send?.({ count, letIn });
load.close();
process.disconnect();
