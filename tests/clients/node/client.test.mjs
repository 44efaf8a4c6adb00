// The real package with nothing but OPENAI_BASE_URL and OPENAI_API_KEY set.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI, { AzureOpenAI } from 'openai';

const ANSWER = 'Four crates fit on the pallet.';
const FINE_TUNED = 'ft:gpt-4.1-mini-2025-04-14:acme:support:B2xY';
const messages = [{ role: 'user', content: 'How many crates fit on a pallet?' }];
const weather = {
  type: 'function',
  function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } },
};

const client = new OpenAI({ maxRetries: 0, timeout: 20_000 });
const endpoint = process.env.AZURE_OPENAI_ENDPOINT;
const azure = new AzureOpenAI({
  // OPENAI_BASE_URL is set too, and this client takes only one of both.
  baseURL: null,
  endpoint,
  apiKey: process.env.AZURE_OPENAI_API_KEY,
  apiVersion: '2024-10-21',
  maxRetries: 0,
});
const azureV1 = new OpenAI({
  baseURL: `${endpoint}/openai/v1`,
  apiKey: process.env.AZURE_OPENAI_API_KEY,
  maxRetries: 0,
});

test('a replayed stream is the live one, chunk by chunk', async () => {
  const words = [{ role: 'user', content: `How many crates, ${crypto.randomUUID()}?` }];
  const ask = async (each) => {
    const { data, response } = await each.chat.completions
      .create({ model: 'kept', temperature: 0, messages: words, stream: true })
      .withResponse();
    const chunks = [];
    for await (const chunk of data) chunks.push(chunk);
    return [response.headers.get('x-tunegate-cache'), chunks];
  };
  for (const each of [client]) {
    const [first, live] = await ask(each);
    const [second, again] = await ask(each);
    assert.deepEqual([first, second], ['miss', 'hit']);
    assert.deepEqual(again, live);
  }
  const helper = client.chat.completions.stream({ model: 'kept', temperature: 0, messages: words });
  assert.equal(await helper.finalContent(), ANSWER);
});

test('this is a Node that the package supports', () => {
  assert.ok(Number(process.versions.node.split('.')[0]) >= 22, process.version);
});

for (const [name, each] of Object.entries({ client, azure, azureV1 })) {
  test(`${name}: a whole answer`, async () => {
    const answer = await each.chat.completions.create({ model: 'support-bot', messages });
    assert.equal(answer.choices[0].message.content, ANSWER);
    assert.equal(answer.usage.total_tokens, 13);
    assert.ok(answer._request_id);
  });

  test(`${name}: a stream, with and without usage`, async () => {
    for (const include_usage of [false, true]) {
      const stream = await each.chat.completions.create({
        model: 'support-bot',
        messages,
        stream: true,
        ...(include_usage && { stream_options: { include_usage } }),
      });
      let text = '';
      let usage;
      for await (const chunk of stream) {
        if (!include_usage) assert.equal(chunk.choices.length, 1);
        text += chunk.choices[0]?.delta?.content ?? '';
        usage = chunk.usage ?? usage;
      }
      assert.equal(text, ANSWER);
      assert.equal(usage?.completion_tokens, include_usage ? 6 : undefined);
    }
  });
}

test('tools in a stream', async () => {
  const stream = client.chat.completions.stream({ model: 'support-bot', messages, tools: [weather] });
  const answer = await stream.finalChatCompletion();
  assert.equal(answer.choices[0].message.tool_calls[0].function.arguments, '{"city":"Zürich"}');
});

test('a stream that is left', async () => {
  const stream = await client.chat.completions.create({ model: 'support-bot', messages, stream: true });
  for await (const _ of stream) break;
  stream.controller.abort();
});

test('completions', async () => {
  const answer = await client.completions.create({ model: 'support-bot', prompt: 'How many', max_tokens: 3 });
  assert.equal(answer.choices[0].text, 'Four crates fit');
});

test('embeddings', async () => {
  for (const encoding_format of [undefined, 'float']) {
    const answer = await client.embeddings.create({ model: 'embedder', input: ['one', 'two'], encoding_format });
    assert.deepEqual(Array.from(answer.data[1].embedding), [0.25, -0.5, 1]);
  }
});

test('responses, whole and streamed', async () => {
  const made = await client.responses.create({ model: 'support-bot', input: 'How many?' });
  assert.equal(made.output_text, ANSWER);
  const found = await client.responses.retrieve(made.id);
  assert.equal(found.id, made.id);
  const stream = await client.responses.create({ model: 'support-bot', input: 'How many?', stream: true });
  let text = '';
  for await (const event of stream) if (event.type === 'response.output_text.delta') text += event.delta;
  assert.equal(text, ANSWER);
});

test('models', async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.includes(FINE_TUNED), ids.join());
  assert.equal((await client.models.retrieve(FINE_TUNED)).id, FINE_TUNED);
});

test('errors have their classes and codes', async () => {
  const ask = (which, model) => which.chat.completions.create({ model, messages });
  const wrong = new OpenAI({ apiKey: 'sk-wrong', maxRetries: 0 });
  for (const [which, model, kind, code] of [
    [client, 'no-such-bot', OpenAI.NotFoundError, 'model_not_found'],
    [client, 'too-long', OpenAI.BadRequestError, 'context_length_exceeded'],
    [client, 'rate-limited', OpenAI.RateLimitError, 'rate_limit_exceeded'],
    [client, 'broken', OpenAI.InternalServerError, null],
    [wrong, 'support-bot', OpenAI.AuthenticationError, 'invalid_api_key'],
  ]) {
    await assert.rejects(ask(which, model), (error) => {
      assert.ok(error instanceof kind, `${model}: ${error}`);
      assert.equal(error.code ?? null, code);
      assert.ok(error.requestID);
      return true;
    });
  }
});
