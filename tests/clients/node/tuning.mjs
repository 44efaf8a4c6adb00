// Files and jobs with the real package: nothing but OPENAI_BASE_URL and OPENAI_API_KEY set. Not one of the tests that run
// by themselves: it needs a gateway that trains.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import OpenAI, { toFile } from 'openai';

const MODEL = process.env.TUNEGATE_TEST_BASE_MODEL;
const LIMIT_MS = 60_000;
const client = new OpenAI({ maxRetries: 0, timeout: 20_000 });

const row = (number) => ({
  messages: [
    { role: 'user', content: `Who comes ${number}?` },
    { role: 'assistant', content: 'Meow!' },
  ],
});
const rows = Array.from({ length: 10 }, (_, number) => `${JSON.stringify(row(number))}\n`).join('');

async function finished(id) {
  const begun = Date.now();
  for (;;) {
    const job = await client.fineTuning.jobs.retrieve(id);
    if (['succeeded', 'failed', 'cancelled'].includes(job.status)) return job;
    assert.ok(Date.now() - begun < LIMIT_MS, `the job is ${job.status}`);
    await pause(100);
  }
}

async function all(pages) {
  const found = [];
  for await (const each of pages) found.push(each);
  return found;
}

test('a job goes from its file to its model', async () => {
  const file = await client.files.create({
    file: await toFile(Buffer.from(rows), 'train.jsonl'),
    purpose: 'fine-tune',
  });
  assert.equal(file.bytes, Buffer.byteLength(rows));
  const job = await client.fineTuning.jobs.create({
    model: MODEL,
    training_file: file.id,
    method: { type: 'supervised', supervised: { hyperparameters: { n_epochs: 2 } } },
  });
  assert.equal(job.object, 'fine_tuning.job');
  const ended = await finished(job.id);
  assert.equal(ended.status, 'succeeded', JSON.stringify(ended));
  const listed = await all(client.fineTuning.jobs.list({ limit: 1 }));
  assert.ok(listed.some((each) => each.id === job.id));
  const events = await all(client.fineTuning.jobs.listEvents(job.id, { limit: 4 }));
  assert.ok(events.length > 6 && new Set(events.map((event) => event.id)).size === events.length);
  assert.ok(events.some((event) => event.type === 'metrics' && event.data.step === 1));
  const checkpoints = await all(client.fineTuning.jobs.checkpoints.list(job.id));
  assert.equal(checkpoints.length, 2);
  assert.ok(checkpoints.every((each) => each.fine_tuning_job_id === job.id && each.metrics.step > 0));
  const answer = await client.chat.completions.create({
    model: ended.fine_tuned_model,
    messages: [{ role: 'user', content: 'hi' }],
  });
  assert.ok(answer.choices[0].message.content);
  assert.equal((await client.files.delete(file.id)).deleted, true);
});
