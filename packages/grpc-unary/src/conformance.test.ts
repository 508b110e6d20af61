/** What a client of gRPC can tell: the same of this server and of one of grpc-js, asked by grpc-js. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import {
  type Client,
  type ClientUnaryCall,
  credentials,
  Metadata,
  makeClientConstructor,
  type ServiceError,
} from '@grpc/grpc-js';
import { echoServers, messageOctetsMax, type Served } from './echo.testing.ts';
import { type Failure, status } from './status.ts';

for (const [name, serve] of Object.entries(echoServers)) {
  describe(`a client of grpc-js at ${name}`, () => {
    let served: Served;
    let client: Client;
    let aborted = Promise.withResolvers<void>();
    before(async () => {
      served = await serve({ onAborted: () => aborted.resolve() });
      client = new (makeClientConstructor({}, 'Echo'))(`127.0.0.1:${served.port}`, credentials.createInsecure(), {
        'grpc.max_send_message_length': -1,
      });
    });
    after(async () => {
      client.close();
      await served.close();
    });

    interface Asked {
      readonly call: ClientUnaryCall;
      readonly answer: Promise<Buffer>;
    }

    function ask(message: Buffer, { path = '/test.Echo/Say', metadata = {}, deadlineMs = 10_000 } = {}): Asked {
      const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
      const fields = new Metadata();
      for (const [key, value] of Object.entries<string>(metadata)) fields.set(key, value);
      const same = (bytes: Buffer) => bytes;
      const options = { deadline: Date.now() + deadlineMs };
      const call = client.makeUnaryRequest(path, same, same, message, fields, options, (error, answer) =>
        error === null && answer !== undefined ? resolve(answer) : reject(error),
      );
      return { call, answer: promise };
    }

    const failure = async (asked: Asked): Promise<Failure> => {
      const error: unknown = await asked.answer.then(
        () => assert.fail('it was answered'),
        (error: unknown) => error,
      );
      const { code, details } = error as ServiceError;
      return { status: code, message: details };
    };

    it('gets the answer of each call, of any size', async () => {
      for (const length of [0, 1, 16_379, 16_380, 70_000, messageOctetsMax]) {
        const message = Buffer.alloc(length, 'x');
        assert.deepEqual(await ask(message).answer, message);
      }
      assert.equal((await ask(Buffer.from('l')).answer).length, 300_000);
    });

    it('gets its own of many at once, at once or later', async () => {
      const texts = Array.from({ length: 500 }, (_, index) => `${index % 2 === 0 ? 'x' : 'p'}${index}`);
      const answers = await Promise.all(texts.map((text) => ask(Buffer.from(text)).answer));
      assert.deepEqual(answers.map(String), texts);
    });

    it('gets the status of a handler with its message', async () => {
      assert.deepEqual(await failure(ask(Buffer.from('f'))), {
        status: status.permissionDenied,
        message: 'caf\u00e9: 100%',
      });
    });

    it('is told of an unknown method, of a message too large, and of an encoding that is not spoken', async () => {
      assert.equal((await failure(ask(Buffer.from('x'), { path: '/test.Echo/Other' }))).status, status.unimplemented);
      assert.equal((await failure(ask(Buffer.alloc(messageOctetsMax + 1)))).status, status.resourceExhausted);
      assert.equal((await failure(ask(Buffer.alloc(3 * messageOctetsMax)))).status, status.resourceExhausted);
      assert.deepEqual(await ask(Buffer.from('x')).answer, Buffer.from('x'));
    });

    it('has its deadline kept by the server too', async () => {
      aborted = Promise.withResolvers();
      assert.equal((await failure(ask(Buffer.from('h'), { deadlineMs: 100 }))).status, status.deadlineExceeded);
      await aborted.promise;
    });

    it('can give up', async () => {
      aborted = Promise.withResolvers();
      const asked = ask(Buffer.from('h'));
      await ask(Buffer.from('x')).answer;
      asked.call.cancel();
      assert.equal((await failure(asked)).status, status.cancelled);
      await aborted.promise;
    });

    it('may send fields of any kind', async () => {
      const metadata = { 'x-text': 'a'.repeat(3000), 'x-other': 'b, c', 'user-agent': 'x' };
      assert.deepEqual(await ask(Buffer.from('x'), { metadata }).answer, Buffer.from('x'));
    });
  });
}
