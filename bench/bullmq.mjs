// BullMQ on a Redis of its own, one repetition: node bullmq.mjs SOCKET SCALE. Prints JSON.
// The working directory is where npm installed BullMQ.
//
// Processing counts from 10 % done to all done. Latency is taken on CLOCK_MONOTONIC, by a worker in a process of its own.
import { fork } from 'node:child_process';
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const require = createRequire(`${process.cwd()}/`);
const { Queue, Worker } = require('bullmq');
const { Redis } = require('ioredis');

const [socket, scale] = process.argv.slice(2);
const connection = { path: socket, maxRetriesPerRequest: null };
const name = 'bench';
const now = () => process.hrtime.bigint();
const n = (count) => Math.max(200, Math.round(count * Number(scale)));
const perSecond = (count, begin) => (count * 1e9) / Number(now() - begin);

async function fill(queue, count) {
  const begin = now();
  for (let at = 0; at < count; at += 1000) {
    const size = Math.min(1000, count - at);
    await queue.addBulk(Array.from({ length: size }, (_, i) => ({ name: 'noop', data: { n: at + i } })));
  }
  return perSecond(count, begin);
}

async function addOne(queue, count) {
  const begin = now();
  for (let i = 0; i < count; i += 1) await queue.add('noop', { n: i });
  return perSecond(count, begin);
}

async function run(queue, count, options) {
  await fill(queue, count);
  const skipped = Math.floor(count / 10);
  let worker;
  const rate = await new Promise((resolve, reject) => {
    let done = 0;
    let begin;
    worker = new Worker(name, async (job) => job.data.n, { connection, ...options });
    worker.on('error', reject);
    worker.on('failed', (job, error) => reject(error));
    worker.on('completed', () => {
      done += 1;
      if (done === skipped) begin = now();
      if (done === count) resolve(perSecond(count - skipped, begin));
    });
  });
  await worker.close();
  return rate;
}

async function latency(queue, count) {
  const child = fork(fileURLToPath(import.meta.url), [socket, 'worker']);
  const waits = [];
  const started = new Promise((resolve) => child.once('message', resolve));
  child.on('message', (message) => message.wait !== undefined && waits.push(message.wait));
  const { rss } = await started;
  const send = () => queue.add('now', { sent: String(now()) });
  await send();
  while (waits.length === 0) await sleep(5);
  waits.length = 0;
  for (let i = 0; i < count; i += 1) {
    await send();
    await sleep(20);
  }
  while (waits.length < count) await sleep(5);
  child.send('stop');
  await new Promise((resolve) => child.once('exit', resolve));
  waits.sort((a, b) => a - b);
  const quantile = (q) => waits[Math.floor(q * count)];
  return { p50: quantile(0.5), p95: quantile(0.95), p99: quantile(0.99), rss_mb: rss / 1e6 };
}

async function serve() {
  const worker = new Worker(name, async (job) => {
    process.send({ wait: Number(now() - BigInt(job.data.sent)) / 1e6 });
  }, { connection });
  await worker.waitUntilReady();
  await sleep(1000);
  process.send({ rss: process.memoryUsage.rss() });
  process.once('message', async () => {
    await worker.close();
    process.exit(0);
  });
}

async function measure() {
  const redis = new Redis(connection);
  const queue = new Queue(name, { connection });
  const alone = async (what, ...rest) => {
    await redis.flushall();
    return what(queue, ...rest);
  };
  const removing = { removeOnComplete: { count: 0 } };
  const result = {
    enqueue_one: await alone(addOne, n(4000)),
    enqueue_many: await alone(fill, n(20000)),
    concurrency_1: await alone(run, n(8000), { concurrency: 1 }),
    concurrency_10: await alone(run, n(20000), { concurrency: 10 }),
    concurrency_100: await alone(run, n(20000), { concurrency: 100 }),
    concurrency_100_removing: await alone(run, n(20000), { concurrency: 100, ...removing }),
    latency: await alone(latency, n(200)),
  };
  await queue.close();
  await redis.quit();
  console.log(JSON.stringify(result));
}

await (scale === 'worker' ? serve() : measure());
