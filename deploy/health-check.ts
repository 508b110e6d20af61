/** Ends with 0 when the service in this container says that it is ready. */
const response = await fetch('http://127.0.0.1:9464/readyz', { signal: AbortSignal.timeout(2000) });
if (!response.ok) {
  console.error(await response.text());
  process.exitCode = 1;
}
